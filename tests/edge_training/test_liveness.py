"""Simulated attacks and the stage that learns from them."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from edge_sdk.errors import InputError  # noqa: E402
from edge_training.baselines import histogram, statistics  # noqa: E402
from edge_training.data.attacks import SIDE, SPECIES, Simulator  # noqa: E402
from edge_training.data.portraits import Portrait  # noqa: E402
from edge_training.data.presentations import SPLITS, part_of  # noqa: E402
from edge_training.networks import pad  # noqa: E402
from edge_training.stages import stages_of  # noqa: E402
from edge_training.stages.liveness import LivenessOptions, LivenessStage  # noqa: E402
from edge_training.train import fit  # noqa: E402


@pytest.fixture(scope="module")
def simulator():
    rng = np.random.default_rng(0)
    portraits = []
    for _ in range(3):
        image = rng.integers(60, 120, (200, 180, 3)).astype(np.uint8)
        image[60:140, 50:130] = (210, 160, 130)
        portraits.append(Portrait(image, np.array([50, 60, 130, 140], np.float32)))
    backgrounds = [rng.integers(0, 256, (90, 120, 3)).astype(np.uint8) for _ in range(3)]
    return Simulator(portraits, backgrounds)


@pytest.mark.parametrize("species", ["bona_fide", *SPECIES])
def test_a_presentation_is_a_frame_with_its_face_inside(simulator, species):
    for seed in range(20):
        frame, box = simulator(seed % 3, species, np.random.default_rng(seed))
        assert frame.dtype == np.uint8
        assert frame.shape[2] == 3
        assert max(frame.shape[:2]) <= SIDE
        width, height = box[2:] - box[:2]
        assert 25 <= width <= 110
        assert 0.7 <= width / height <= 1.4
        centre = (box[:2] + box[2:]) / 2
        assert (centre > 0).all()
        assert (centre < frame.shape[1::-1]).all()


def test_the_same_draw_makes_the_same_picture_and_another_one_another(simulator):
    one, again, other = (simulator(0, "print", np.random.default_rng(s))[0] for s in (1, 1, 2))
    assert (one == again).all()
    assert one.shape != other.shape or (one != other).any()


def test_species_differ_where_everything_else_is_drawn_alike(simulator):
    frames = [simulator(0, s, np.random.default_rng(5))[0] for s in ("bona_fide", "mask")]
    assert frames[0].shape != frames[1].shape or np.abs(frames[0].astype(int) - frames[1]).mean() > 1


def test_splits_share_no_portrait():
    parts = [part_of(list(range(100)), split) for split in SPLITS]
    assert sorted(item for part in parts for item in part) == list(range(100))
    assert [len(p) for p in parts] == [10, 10, 80]


def test_the_networks_answer_and_its_spectrum_reach_every_parameter():
    torch.manual_seed(0)
    network = pad.PadNet()
    logits, spectrum = network(torch.rand(2, 3, 80, 80))
    assert logits.shape == (2, 2)
    assert spectrum.shape == (2, 10, 10)
    (logits.square().sum() + spectrum.square().sum()).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_grating_shows_in_the_spectrum_where_its_frequency_is():
    x = torch.arange(80.0)
    grating = (0.5 + 0.4 * torch.cos(2 * torch.pi * 0.25 * x)).expand(1, 3, 80, 80)
    found = pad.spectrum_of(grating)[0]
    row, column = divmod(int(found.argmax()), pad.SPECTRUM)
    assert row in (4, 5)
    assert column in (2, 7, 4, 5)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_the_stage_learns_to_tell_two_textures_apart(tmp_path, monkeypatch):
    def made(folder, split, count, species, *, seed, processes):
        rng = np.random.default_rng((seed, len(split)))
        groups = np.array(["bona_fide", "print", "bona_fide", "replay", "bona_fide", "mask"] * 8)
        images = rng.integers(90, 110, (48, 80, 80, 3)).astype(np.uint8)
        images[groups != "bona_fide", ::2] += 60
        return images, groups

    monkeypatch.setattr("edge_training.stages.liveness.presentations", made)
    stage = LivenessStage(LivenessOptions(epochs=14, batch=16), tmp_path, seed=1)
    # Batch norm needs as many steps to learn what validation sees of it.
    stage.schedule = type(stage.schedule)(14, 2e-3, warmup_epochs=0.5, ema=0.5, workers=0)
    fit(stage, tmp_path, None, "cpu")
    log = [json.loads(line) for line in (tmp_path / "liveness.jsonl").read_text().splitlines()]
    assert len(log) == 14
    assert max(record["auc_worst"] for record in log) > 0.95


def test_an_unknown_species_or_key_is_refused(tmp_path):
    with pytest.raises(InputError, match="deepfake"):
        LivenessOptions(epochs=1, species=["deepfake"])
    with pytest.raises(InputError, match="speed"):
        stages_of({"network": "padnet", "stage": [{"kind": "liveness", "epochs": 1, "speed": 2}]}, tmp_path)


def test_baselines_look_at_what_they_say():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (80, 80, 3)).astype(np.uint8)
    assert histogram(image).shape == (48,)
    assert histogram(image[:, ::-1]).tolist() == histogram(image).tolist()
    assert np.isfinite(statistics(image)).all()
    assert len(statistics(image)) == len(statistics(image[::-1]))
