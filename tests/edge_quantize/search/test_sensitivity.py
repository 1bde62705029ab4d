"""What quantizing does to answers: by each method to find ranges, and block by block."""

import dataclasses

import pytest

pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("onnxruntime", reason="engine not installed")

import toys

from edge_quantize.graph.blocks import of_onnx
from edge_quantize.search import sensitivity
from edge_quantize.workbench import Workbench, source_model
from edge_sdk.engine_cache import EngineCache
from edge_sdk.errors import UnsupportedRecipe
from edge_sdk.target import Artifact, find_target

COUNT = 64
RECIPE = dataclasses.replace(toys.INT8, calibration_items=COUNT)


@pytest.fixture(scope="module")
def bench(tmp_path_factory, toy_onnx):
    folder = tmp_path_factory.mktemp("pictures")
    toys.write_pictures(folder / "calibration", COUNT, 1, labelled=False)
    toys.write_pictures(folder / "evaluation", 8, 2)
    model = source_model(toys.SPEC, toy_onnx)
    return lambda: Workbench(model, calibration=folder / "calibration", evaluation=folder / "evaluation")


class Methods(toys.FakeTarget):
    """A quantizer that knows some methods, each with the noise that it leaves in the scores."""

    def __init__(self, **noise):
        super().__init__()
        self.noise, self.calibrated, self.compiled = noise, [], []

    def calibrate(self, model, *, recipe, frames):
        if recipe.method not in self.noise:
            raise UnsupportedRecipe(f"no {recipe.method}", remedy="-")
        self.calibrated.append((recipe.method, len(frames)))
        return super().calibrate(model, recipe=recipe, frames=frames)

    def compile(self, model, *, recipe, ranges=None):
        self.compiled.append(recipe.method if recipe.calibrated else "float")
        noise = self.noise[recipe.method] if recipe.calibrated else 0.0
        return Artifact(
            {"noise": repr(noise).encode()}, ("pixels",), tuple(t.name for t in toys.SPEC.outputs)
        )

    def load(self, artifact, spec, *, options):
        noise = float(artifact.files["noise"])

        def answer(inputs):
            found = toys.engine(inputs["pixels"])
            return {n: v + noise if n.startswith("cls") else v for n, v in found.items()}

        return toys.FakeSession(spec, answer=answer)


@pytest.mark.parametrize(
    ("noise", "method", "name"),
    [
        ({"minmax": 0.3, "mse": 0.1}, "mse", f"{RECIPE.name}-mse"),
        ({"minmax": 0.1, "mse": 0.3, "entropy": 0.2}, "minmax", RECIPE.name),
        ({"minmax": 0.2, "mse": 0.2}, "minmax", RECIPE.name),
    ],
)
def test_ranges_are_found_by_the_method_with_the_least_noise_of_those_that_fit(bench, noise, method, name):
    target, asked = Methods(**noise), bench()
    recipe, artifact = sensitivity.quietest(asked, target, RECIPE)
    assert recipe == dataclasses.replace(RECIPE, method=method, name=name)
    assert float(artifact.files["noise"]) == noise[method]
    # Ranges of extremes depend on how many pictures there are.
    assert target.calibrated == [(m, COUNT) for m in noise]
    assert target.compiled == ["float", *noise]
    # What was calibrated serves every later compilation by the same method.
    asked.compile(target, dataclasses.replace(recipe, precision="int8-mixed", keep_float=("Mul",)))
    assert len(target.calibrated) == len(noise)


def test_a_target_that_follows_no_method_says_why(bench):
    with pytest.raises(UnsupportedRecipe, match="no minmax"):
        sensitivity.quietest(bench(), Methods(), RECIPE)


def test_every_block_is_measured_alone_and_remembered(bench, toy_onnx, tmp_path, monkeypatch):
    target, asked, cache = find_target("onnxruntime"), bench(), EngineCache(tmp_path / "cache")
    calibrate, calls = type(target).calibrate, []

    def noted(self, model, *, recipe, frames):
        calls.append(len(frames))
        return calibrate(self, model, recipe=recipe, frames=frames)

    monkeypatch.setattr(type(target), "calibrate", noted)
    found = sensitivity.measure(asked, target, RECIPE, cache=cache)
    assert calls == [sensitivity.ITEMS], "the blocks share one calibration"
    assert {row.block for row in found} == {op.path for op in of_onnx(toy_onnx) if op.weighted}
    assert [row.noise for row in found] == sorted((row.noise for row in found), reverse=True)
    for row in found:  # a block of one output disturbs that one alone
        loudest = max(row.outputs, key=row.outputs.__getitem__)
        assert row.block == f"m_{loudest}"
        assert sum(row.outputs.values()) == pytest.approx(row.outputs[loudest], rel=1e-3)
    monkeypatch.setattr(asked, "compile", None)
    assert sensitivity.measure(asked, target, RECIPE, cache=cache) == found
