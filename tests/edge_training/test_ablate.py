"""Cells of one recipe, trained for a short while and set beside each other."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from edge_sdk.errors import InputError  # noqa: E402
from edge_training import ablate, checkpoint  # noqa: E402
from edge_training.data import fer2013  # noqa: E402
from edge_training.data.attacks import SPECIES  # noqa: E402
from edge_training.data.augment import FACE_SIDES  # noqa: E402
from edge_training.networks.gmenet import GMENet  # noqa: E402
from edge_training.stages import liveness  # noqa: E402
from edge_training.stages.student import StudentStage  # noqa: E402


def faces(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 7
    images = rng.integers(0, 256, (count, 48, 48), dtype=np.uint8)
    return fer2013.Faces(images, labels, np.eye(7, dtype=np.float32)[labels], np.zeros(count, bool))


def test_students_are_trained_in_every_cell_with_every_seed_and_once(tmp_path, monkeypatch):
    sets = fer2013.Fer2013(faces(16, 0), faces(8, 1), faces(8, 2))
    monkeypatch.setattr(ablate.fer2013, "read", lambda folder: sets)
    monkeypatch.setattr(StudentStage, "workers", 0)
    torch.manual_seed(5)
    checkpoint.save(tmp_path / "teacher.safetensors", GMENet().state_dict(), {})
    (tmp_path / "r.toml").write_text(
        "seeds = [1, 2]\n[student]\nepochs = 1\nbatch = 8\n"
        '[[cell]]\nname = "a"\ndistil = "none"\n[[cell]]\nname = "b"\ndistil = "attention"\n'
    )

    def run(teacher=tmp_path / "teacher.safetensors"):
        return ablate.run(tmp_path / "r.toml", teacher, tmp_path, tmp_path / "work", device="cpu")

    found = run()
    assert {name: len(figures) for name, figures in found.items()} == {"a": 2, "b": 2}
    assert list(found["a"][0]) == [f"{size} px" for size in FACE_SIDES]
    monkeypatch.setattr(ablate, "fit", lambda *_: pytest.fail("a finished cell is trained again"))
    assert run() == found
    assert ablate.table(found).splitlines()[2].startswith("| a | ")
    with pytest.raises(InputError, match="teacher"):
        run(teacher=None)


def test_a_species_that_a_cell_leaves_out_is_measured_all_the_same(tmp_path, monkeypatch):
    learned = []
    targets = liveness.LivenessStage._targets
    monkeypatch.setattr(
        liveness.LivenessStage,
        "_targets",
        lambda self, images, genuine: learned.append(genuine.tolist()) or targets(self, images, genuine),
    )

    def made(folder, split, count, species, *, seed, processes):
        assert species == SPECIES
        groups = np.array(["bona_fide", "print", "bona_fide", "replay", "bona_fide", "mask"] * 4)
        return np.random.default_rng(seed).integers(0, 256, (24, 80, 80, 3)).astype(np.uint8), groups

    monkeypatch.setattr(liveness, "presentations", made)
    (tmp_path / "r.toml").write_text(
        'seeds = [1]\n[liveness]\nepochs = 1\nbatch = 8\n[[cell]]\nname = "no mask"\nspecies = ["print", "replay"]\n'
    )
    found = ablate.run(tmp_path / "r.toml", None, tmp_path, tmp_path / "work", device="cpu")
    assert learned == [[True, False, True, False, True] * 4]  # print and replay; the mask is gone
    (figures,) = found["no mask"]
    assert set(figures) == {f"{title} {name}" for title in ("AUC", "EER") for name in SPECIES}
    assert all(0 <= value <= 1 for value in figures.values())


@pytest.mark.parametrize(
    "text",
    [
        "seeds = [1]",
        '[[cell]]\nname = "a"\nepochs = 1',
        "seeds = [",
        'seeds = [1]\n[[cell]]\nname = "a"',
        'seeds = [1]\n[student]\n[liveness]\n[[cell]]\nname = "a"',
        'seeds = [1]\n[liveness]\nepochs = 1\n[[cell]]\nname = "a"\n[[cell]]\nname = "a"',
    ],
)
def test_a_recipe_that_says_too_little_or_too_much_is_refused(tmp_path, text):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError):
        ablate.run(tmp_path / "r.toml", None, tmp_path, tmp_path, device="cpu")
