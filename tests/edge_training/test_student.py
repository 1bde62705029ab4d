import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from edge_sdk.errors import InputError  # noqa: E402
from edge_training.data import augment, fer2013  # noqa: E402
from edge_training.data.augment import FACE_SIDES  # noqa: E402
from edge_training.networks.gmenet import GMENet  # noqa: E402
from edge_training.stages.base import Teacher  # noqa: E402
from edge_training.stages.student import (  # noqa: E402
    StudentOptions,
    StudentStage,
    attention_distance,
    logit_distance,
)
from edge_training.train import fit  # noqa: E402


def faces(count=16, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 7
    images = rng.integers(0, 256, (count, 48, 48), dtype=np.uint8)
    return fer2013.Faces(images, labels, np.eye(7, dtype=np.float32)[labels], np.zeros(count, bool))


def stage(others=None, **options):
    data = fer2013.Fer2013(faces(), faces(8, 1), faces(8, 2))
    return StudentStage(StudentOptions(**{"epochs": 1, "batch": 8, **options}), data, 1, others)


def teacher():
    torch.manual_seed(5)
    return GMENet().state_dict()


@pytest.mark.parametrize("size", FACE_SIDES)
def test_a_degraded_face_has_no_more_detail_than_its_size(size):
    image = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    seen = augment.degrade(image, size)
    assert seen.shape == image.shape
    if size == 48:
        assert (seen == image).all()
    else:
        # What was lost stays lost: degrading once more to the same size changes little.
        again = augment.degrade(seen, size)
        assert np.abs(again.astype(int) - seen).mean() < np.abs(image.astype(int) - seen).mean() / 2


def test_sizes_are_seen_as_often_as_the_recipe_says():
    for number, size in enumerate(FACE_SIDES):
        whole, small, *_ = stage(shares=np.eye(len(FACE_SIDES))[number].tolist()).batches(0)[0]
        expected = [augment.degrade(image, size) for image in whole.numpy()]
        assert (small.numpy() == np.stack(expected)).all()


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.5, 0.5, 0.5, -1.0], [0.1] * 5])
def test_shares_that_are_none_are_refused(shares):
    with pytest.raises(InputError, match="shares") as caught:
        StudentOptions(epochs=1, shares=shares)
    assert "5 that sum to 1" in caught.value.remedy


def test_equal_maps_are_no_distance_apart_and_opposite_ones_two():
    maps = [torch.rand(2, 8, 1, 1) + 0.1, torch.rand(2, 1, 6, 6) + 0.1]
    assert float(attention_distance(maps, [m * 3 for m in maps])) == pytest.approx(0, abs=1e-6)
    assert float(attention_distance(maps, [-m for m in maps])) == pytest.approx(2, abs=1e-6)


def test_the_distance_does_not_grow_with_the_number_of_maps():
    a, b = torch.rand(2, 8, 1, 1), torch.rand(2, 8, 1, 1)
    once, thrice = attention_distance([a], [b]), attention_distance([a] * 3, [b] * 3)
    assert float(once) == pytest.approx(float(thrice))


def test_equal_answers_are_no_distance_apart():
    logits = torch.randn(4, 7)
    assert float(logit_distance(logits, logits + 3, 2.0)) == pytest.approx(0, abs=1e-6)
    assert float(logit_distance(logits, -logits, 2.0)) > 0


@pytest.mark.parametrize("distil", ["none", "logit", "attention", "both"])
def test_the_teacher_stays_as_it_is_and_the_student_learns(distil, tmp_path):
    student = stage(distil=distil)
    student.schedule = type(student.schedule)(1, 1e-3, workers=0)
    before = teacher()
    fit(student, tmp_path, before, "cpu")
    kept = student._teacher.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in before.items())


def test_other_teachers_have_an_equal_say_in_the_answers_and_none_in_the_maps():
    alone, joined = stage(), stage(Teacher((GMENet(), 48), (GMENet(), 48)))
    for made in (alone, joined):
        made.network(teacher())
    images = torch.rand(4, 3, 48, 48)
    (own, own_maps), (answer, maps) = alone._teacher_outputs(images), joined._teacher_outputs(images)
    torch.testing.assert_close(answer, (own + 2 * joined.others.logits(images)) / 3)
    assert all(torch.equal(a, b) for a, b in zip(own_maps, maps, strict=True))
    assert not answer.requires_grad


@pytest.mark.parametrize("others", [None, Teacher((GMENet(), 48))])
def test_a_mirror_image_is_taught_as_the_face_is(others):
    made = stage(others)
    made.network(teacher())
    images = torch.rand(4, 3, 48, 48)
    (answer, _), (mirrored, _) = made._teacher_outputs(images), made._teacher_outputs(images.flip(3))
    torch.testing.assert_close(answer, mirrored)


def test_a_batch_shows_each_face_whole_and_degraded_and_again_the_same():
    batches = stage().batches(0)
    whole, small, targets, votes = batches[0]
    assert whole.shape == small.shape == (8, 48, 48, 3)
    assert targets.shape == votes.shape == (8, 7)
    assert not torch.equal(whole, small)
    assert all(torch.equal(a, b) for a, b in zip(batches[0], (whole, small, targets, votes), strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"start": "teacher", "global_branch": False},
        {"distil": "attention", "attention": False, "start": "scratch"},
        {"distil": "magic"},
        {"start": "middle"},
    ],
)
def test_options_that_contradict_each_other_are_refused(options):
    with pytest.raises(InputError):
        StudentOptions(epochs=1, **options)


def test_a_student_without_a_teacher_is_refused():
    with pytest.raises(InputError, match="teacher"):
        stage().network(None)
