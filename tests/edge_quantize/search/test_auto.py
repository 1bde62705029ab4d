"""Every recipe that fits is tried, and the fastest that passes is kept."""

import pytest

pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("pycocotools", reason="host tool not installed")
pytest.importorskip("onnxruntime", reason="engine not installed")

import toys

import edge_sdk as edge
from edge_quantize.build import build
from edge_quantize.recipe import read_recipe
from edge_quantize.search import auto
from edge_sdk import zoo
from edge_sdk.host import BuildRequest
from edge_sdk.target import find_target


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    toys.write_pictures(folder / "calibration", 20, 1, labelled=False)
    toys.write_pictures(folder / "evaluation", 40, 2)
    return folder


def test_auto_keeps_the_fastest_that_passes_and_says_what_the_others_scored(
    pictures, toy_onnx, tmp_path, monkeypatch
):
    target = find_target("onnxruntime")
    compiled, calibrated = [], []
    plain, calibrate = type(target).compile, type(target).calibrate

    def compile_noted(self, model, *, recipe, ranges=None):
        compiled.append(recipe.name)
        return plain(self, model, recipe=recipe, ranges=ranges)

    def calibrate_noted(self, model, *, recipe, frames):
        calibrated.append(recipe.method)
        return calibrate(self, model, recipe=recipe, frames=frames)

    monkeypatch.setattr(type(target), "compile", compile_noted)
    monkeypatch.setattr(type(target), "calibrate", calibrate_noted)
    monkeypatch.setattr(zoo, "spec", lambda name: toys.SPEC)
    recipes = {
        n: read_recipe(toys.write_recipe(pictures, n, name=n))
        for n in ("int8", "int8-wonly", "int8-mixed", "fp32", "fp16")
    }
    monkeypatch.setattr(auto.mixed, "quicker", lambda bench, target, recipe: None)
    monkeypatch.setattr(auto, "read_recipe", lambda name: recipes[name])
    monkeypatch.setattr(
        auto,
        "relative_latency",
        lambda bench, target, found: {n: 0.9 if n == "fp32" else 1.5 for n in found},
    )
    rows = []
    bundle = build(
        BuildRequest(
            toy_onnx,
            model="toy",
            target="onnxruntime",
            recipe="auto",
            calibration=pictures / "calibration",
            evaluation=pictures / "evaluation",
            output=tmp_path / "toy.edge",
            scored=rows.extend,
        )
    )
    assert bundle.manifest.recipe.precision == "fp32"
    (int8,) = [row.recipe for row in rows if row.recipe.split("-")[0] == "int8" and row.outcome != "unfit"]
    assert compiled.count(int8) == 1, "the comparison of methods compiled it: not again for the gate"
    assert len(calibrated) == len(set(calibrated)), "each method calibrates once"
    assert {row.recipe: row.outcome for row in rows} == {
        int8: "slower",
        "int8-wonly": "unfit",
        "fp16": "slower",
        "fp32": "chosen",
    }
    assert edge.Bundle.open(tmp_path / "toy.edge") == bundle


@pytest.mark.parametrize(
    ("ratios", "winner"),
    [({"a": 0.5, "b": 0.4, "c": 1.0}, "b"), ({"a": 0.41, "b": 0.4, "c": 1.0}, "a"), ({}, "a")],
)
def test_within_a_tie_the_smaller_file_wins_and_without_times_the_first(ratios, winner):
    assert auto.choose(ratios, {"a": 1, "b": 2, "c": 3}) == winner
