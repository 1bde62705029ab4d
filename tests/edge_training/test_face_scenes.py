"""Scenes without seams: drawn toy portraits with hand-made meshes, nobody's picture."""

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from edge_sdk.errors import InputError
from edge_training.data import heads, probe_scenes
from edge_training.data.landmarks import MESH, OVAL, Marks, YuNet, held_out
from edge_training.data.natural import NOBODY, NaturalScenes, rectangles
from edge_training.data.shards import Shards, write_shard


def toy_mesh(centre, half):
    """An upright oval with eyes, nose and mouth where they belong; all other landmarks on the nose."""
    x, y = centre
    mesh = np.tile(np.array([x, y + 0.1 * half], np.float32), (MESH, 1))
    for i, landmark in enumerate(OVAL):
        turn = 2 * np.pi * i / len(OVAL)
        mesh[landmark] = (x + 0.8 * half * np.sin(turn), y - half * np.cos(turn))
    places = {
        **{33: (-0.5, -0.2), 133: (-0.2, -0.2), 362: (0.2, -0.2), 263: (0.5, -0.2), 168: (0, -0.2)},
        **{6: (0, -0.1), 197: (0, 0), 195: (0, 0.1), 5: (0, 0.15), 4: (0, 0.2), 1: (0, 0.25), 2: (0, 0.3)},
        **{98: (-0.15, 0.27), 327: (0.15, 0.27), 61: (-0.3, 0.5), 291: (0.3, 0.5), 17: (0, 0.65)},
        **{105: (-0.4, -0.35), 334: (0.4, -0.35), 50: (-0.45, 0.2), 280: (0.45, 0.2)},
        **{127: (-0.79, -0.1), 356: (0.79, -0.1)},
    }
    for landmark, (dx, dy) in places.items():
        mesh[landmark] = (x + dx * half, y + dy * half)
    return mesh


def toy_portrait(number):
    image = np.full((160, 160, 3), (30, 60 + 20 * number, 90), np.uint8)
    cv2.rectangle(image, (40, 110), (120, 160), (40, 160, 60), -1)
    cv2.ellipse(image, (80, 80), (32, 40), 0, 0, 360, (220, 180, 150), -1)
    return image


@pytest.fixture(scope="module")
def maker():
    marks = Marks(
        np.tile(np.array([40, 40, 120, 120], np.float32), (3, 1)),
        np.stack([toy_mesh((80, 80), 40)] * 3),
        np.ones(3, bool),
    )
    portraits = heads.Portraits([toy_portrait(i) for i in range(3)], marks)
    rng = np.random.default_rng(0)
    faces = rng.integers(60, 200, (8, 48, 48)).astype(np.uint8)
    of_faces = Marks(
        np.tile(np.array([0, 0, 48, 48], np.float32), (8, 1)),
        np.stack([toy_mesh((24, 24), 24)] * 8),
        np.arange(8) % 4 != 3,
    )
    backgrounds = [np.full((200, 300, 3), 20, np.uint8)]
    return NaturalScenes(faces, np.arange(8) % 2, of_faces, portraits, backgrounds)


@pytest.mark.parametrize("seed", range(40))
def test_faces_of_a_scene_lie_inside_it_and_say_who_they_are(maker, seed):
    scene = maker(192, np.random.default_rng(seed))
    assert scene.image.shape == (192, 192, 3)
    assert scene.image.dtype == np.uint8
    for box, row, portrait, shown in zip(scene.boxes, scene.rows, scene.portraits, scene.shown, strict=True):
        assert 0 <= box[0] < box[2] <= 192
        assert 0 <= box[1] < box[3] <= 192
        assert row != NOBODY or portrait != NOBODY
        assert 0 <= shown <= 1


def test_scenes_depend_on_the_seed_alone(maker):
    a, b = (maker(160, np.random.default_rng(11)) for _ in range(2))
    assert (a.image == b.image).all()
    assert np.array_equal(a.boxes, b.boxes)


def test_an_empty_scene_has_no_face(maker):
    assert maker.empty(160, np.random.default_rng(1)).boxes == []


def test_what_a_detector_took_for_faces_is_shown_again(maker):
    windows = [np.full((24, 24, 3), 250, np.uint8)]
    hard = NaturalScenes(
        maker.faces, np.arange(8) % 2, maker.marks, maker.portraits, maker.backgrounds, hard=windows
    )
    shown = [hard.face_free_mosaic(20, 160, np.random.default_rng(s)) for s in range(4)]
    assert all(not scene.boxes for scene in shown)
    assert all((scene.image == 250).all(2).any() for scene in shown)


def test_a_portrait_fills_its_picture_and_its_box_is_on_the_face(maker):
    for seed in range(10):
        scene = maker.single(150, 160, np.random.default_rng(seed))
        assert not (scene.image == 114).all(2).any()
        if scene.boxes and scene.rows[0] == NOBODY and scene.shown[0] == 1:
            x1, y1, x2, y2 = scene.boxes[0].astype(int)
            middle = scene.image[(y1 + y2) // 2, (x1 + x2) // 2]
            assert middle[0] > 120  # skin, not the room


def test_people_behind_others_are_not_asked_for(maker):
    scene = maker.group(40, 160, np.random.default_rng(3), rows=1)
    whole = [b for b, out in zip(scene.boxes, scene.ignored, strict=True) if not out]
    assert whole
    for box in whole:
        assert (box[2] - box[0]) * (box[3] - box[1]) > 0.5 * (0.8 * 40) ** 2


def test_a_blended_face_has_no_square_seam(maker):
    """The portrait outside its face's outline stays as it was; inside it is another."""
    portraits = maker.portraits
    before = portraits.place(0, np.array([[1.0, 0, 0], [0, 1.0, 0]]), (160, 160))
    after = portraits.place(0, np.array([[1.0, 0, 0], [0, 1.0, 0]]), (160, 160))
    heads.blend_face(after, maker.faces[0], maker.marks.mesh[0], np.random.default_rng(0))
    outline = np.zeros((160, 160), np.uint8)
    cv2.fillConvexPoly(outline, cv2.convexHull(after.mesh[list(OVAL)].astype(np.int32)), 1)
    difference = np.abs(before.image.astype(int) - after.image).max(2)
    changed = difference > 0
    assert difference[outline == 0].max() <= 8
    assert changed[outline == 0].mean() < 0.02
    assert changed[70:90, 70:90].mean() > 0.5


@pytest.mark.parametrize(
    "draw", [heads.surgical_mask, heads.sunglasses, heads.hat, heads.hand, heads.hair_strip]
)
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_what_hides_a_face_changes_some_of_it(maker, draw, scale):
    side = int(160 * scale)
    head = maker.portraits.place(0, np.array([[scale, 0, 0], [0, scale, 0]]), (side, side))
    before = head.image.copy()
    draw(head, np.random.default_rng(0))
    changed = (before != head.image).any(2).mean()
    assert 0 < changed < 0.6


def test_rectangles_tile_their_place():
    covered = np.zeros((90, 120), int)
    for x1, y1, x2, y2 in rectangles((0, 0, 120, 90), 20, np.random.default_rng(0)):
        covered[y1:y2, x1:x2] += 1
    assert (covered == 1).all()


def test_degraded_pictures_keep_their_shape(maker):
    image = toy_portrait(0)
    for seed in range(30):
        changed = heads.degraded(image, np.random.default_rng(seed))
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8


def test_faces_of_one_size_are_of_that_size(maker):
    asked = probe_scenes.of_size(maker, 32, np.random.default_rng(2), side=160)
    assert len(asked.boxes)
    sides = asked.boxes[:, 2] - asked.boxes[:, 0]
    assert sides == pytest.approx(np.full(len(sides), 32), rel=0.2)


@pytest.mark.parametrize("in_head", [False, True])
def test_one_face_is_the_same_picture_at_every_size(maker, in_head):
    small, box = probe_scenes.one_face(maker, 0, 64, in_head=in_head, side=160)
    large, bigger = probe_scenes.one_face(maker, 0, 128, in_head=in_head, side=160)
    assert (bigger[2] - bigger[0]) / (box[2] - box[0]) == pytest.approx(2, rel=0.15)
    middle = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    again = np.array([(bigger[0] + bigger[2]) / 2, (bigger[1] + bigger[3]) / 2])
    assert middle == pytest.approx(again, abs=4)
    assert small.shape == large.shape == (160, 160, 3)


def test_pasted_squares_do_not_touch(maker):
    _, face, places = probe_scenes.squares(maker, 24, np.random.default_rng(4), side=160)
    assert places[0][2] <= places[1][0]
    assert places[0][0] <= (face[0] + face[2]) / 2 <= places[0][2]


def test_shards_give_back_what_was_written(maker, tmp_path):
    scenes = [maker(64, np.random.default_rng(s)) for s in range(5)]
    write_shard(tmp_path, 0, scenes[:3])
    write_shard(tmp_path, 1, scenes[3:])
    shards = Shards(tmp_path)
    assert len(shards) == 5
    for stored, scene in zip((shards[i] for i in range(5)), scenes, strict=True):
        assert (stored.image == scene.image).all()
        assert stored.boxes.tolist() == [b.tolist() for b in scene.boxes]
        assert stored.rows.tolist() == scene.rows
        assert stored.ignored.tolist() == scene.ignored


def test_a_shard_without_its_faces_is_not_complete(maker, tmp_path):
    write_shard(tmp_path, 0, [maker(64, np.random.default_rng(0))])
    (tmp_path / "0000.npz").unlink()
    with pytest.raises(InputError, match="no scenes"):
        Shards(tmp_path)


def test_a_truncated_shard_is_told(maker, tmp_path):
    write_shard(tmp_path, 0, [maker(64, np.random.default_rng(0))])
    (tmp_path / "0000.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match="cannot read the shard"):
        Shards(tmp_path)


def test_marks_are_kept_and_checked(tmp_path):
    marks = Marks(np.zeros((2, 4), np.float32), np.zeros((2, MESH, 2), np.float32), np.ones(2, bool))
    marks.save(tmp_path / "marks.npz")
    assert Marks.read(tmp_path / "marks.npz", 2).ok.all()
    with pytest.raises(InputError, match="expected 3"):
        Marks.read(tmp_path / "marks.npz", 3)
    (tmp_path / "marks.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot read"):
        Marks.read(tmp_path / "marks.npz", 2)


def test_every_tenth_portrait_with_one_face_is_kept_out():
    images = [np.full((4, 4, 3), i, np.uint8) for i in range(25)]
    # The peer sees two faces in picture 3.
    out = held_out(images, lambda image: [0, 0] if image[0, 0, 0] == 3 else [0])
    assert np.flatnonzero(out).tolist() == [0, 11, 21]


def test_a_missing_detector_is_told(tmp_path):
    with pytest.raises(InputError, match="no detector"):
        YuNet(tmp_path / "none.onnx")
