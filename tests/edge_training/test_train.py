"""The loop: an interrupted run ends where an uninterrupted one does, and nothing is half-written."""

import json

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from edge_sdk.errors import InputError  # noqa: E402
from edge_training import checkpoint  # noqa: E402
from edge_training.stages.base import Schedule  # noqa: E402
from edge_training.train import fit, run  # noqa: E402


class Batches(torch.utils.data.Dataset):
    def __init__(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 3

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(100 * self.epoch + index)
        x = torch.rand(8, 3, 4, 4, generator=generator)
        return x, x.mean((1, 2, 3))


class Stage:
    """Teaches the mean of a picture; stops with an error after ``crash_after`` epochs."""

    name = "mean"
    best_by = "score"

    def __init__(self, epochs=4, crash_after=None):
        # No worker: forking a process that holds three engines and their threads crashes.
        self.schedule = Schedule(epochs=epochs, lr=0.01, warmup_epochs=1, workers=0)
        self.crash_after = crash_after
        self.validated = 0

    def network(self, previous):
        torch.manual_seed(1)
        # A kernel that Muon takes, and parameters that it does not.
        return torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16), torch.nn.Dropout(0.2))

    def batches(self, epoch):
        if self.crash_after == epoch:
            raise KeyboardInterrupt
        return Batches(epoch)

    def loss(self, network, batch):
        x, y = batch
        value = ((network(x).mean((1, 2, 3)) - y) ** 2).mean()
        return value, {"loss": float(value.detach())}

    def lr_factor(self, parameter):
        return 0.5 if parameter.endswith("bias") else 1.0

    def validate(self, network):
        self.validated += 1
        x, y = Batches(99)[0]
        with torch.inference_mode():
            return {"score": -float(((network(x).mean((1, 2, 3)) - y) ** 2).mean())}


def final(folder):
    tensors, state = checkpoint.load(folder / "mean.last.safetensors")
    return tensors, state


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    fit(Stage(), whole, None, "cpu")
    with pytest.raises(KeyboardInterrupt):
        fit(Stage(crash_after=2), parts, None, "cpu")
    fit(Stage(), parts, None, "cpu")
    expected, state = final(whole)
    resumed, resumed_state = final(parts)
    assert state == resumed_state
    assert expected.keys() == resumed.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_finished_run_is_not_trained_again(tmp_path):
    fit(Stage(), tmp_path, None, "cpu")
    again = Stage()
    best = fit(again, tmp_path, None, "cpu")
    assert again.validated == 0
    assert best.exists()


def test_the_log_has_one_line_an_epoch(tmp_path):
    fit(Stage(), tmp_path, None, "cpu")
    lines = [json.loads(line) for line in (tmp_path / "mean.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]


def test_too_few_pictures_for_a_batch_are_refused_and_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(Batches, "__len__", lambda self: 0)
    with pytest.raises(InputError, match="no batch"):
        fit(Stage(), tmp_path, None, "cpu")
    assert not list(tmp_path.iterdir())


def test_a_failing_write_leaves_the_last_checkpoint_intact(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.ones(2)}, {"epoch": 1})

    def disk_full(tensors, name, metadata):
        with open(name, "wb") as f:
            f.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", disk_full)
    with pytest.raises(InputError, match="No space"):
        checkpoint.save(path, {"a": torch.zeros(2)}, {"epoch": 2})
    tensors, state = checkpoint.load(path)
    assert state == {"epoch": 1}
    assert tensors["a"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_truncated_checkpoint_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.ones(20)}, {"epoch": 1})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"x\.safetensors"):
        checkpoint.load(path)


def test_a_broken_recipe_stops_before_anything_is_written(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("seed = ")
    with pytest.raises(InputError, match=r"recipe\.toml"):
        run(recipe, tmp_path, tmp_path / "work", device="cpu", threads=1)
    assert not (tmp_path / "work").exists()


def test_a_seed_of_the_command_line_takes_the_place_of_the_recipes(tmp_path, monkeypatch):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("seed = 1")
    seen = []
    monkeypatch.setattr("edge_training.train.stages_of", lambda recipe, *_: seen.append(recipe["seed"]) or [])
    for seed in (None, 7):
        run(recipe, tmp_path, tmp_path / "work", device="cpu", threads=1, seed=seed)
    assert seen == [1, 7]
