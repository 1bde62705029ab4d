"""What stays in float: first what is faster there, then what the gate needs, within the budget."""

import dataclasses
import json
import types

import numpy as np
import pytest

pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("onnxruntime", reason="engine not installed")

import toys

from edge_quantize.graph.blocks import Operator
from edge_quantize.search import mixed
from edge_quantize.search.sensitivity import BlockNoise
from edge_sdk.errors import GateFailed
from edge_sdk.target import SourceModel, find_target

RECIPE = dataclasses.replace(toys.INT8, name="int8-mixed", precision="int8-mixed")
FRAMES = [{"pixels": toys.picture(np.random.default_rng(s))[0][None]} for s in range(16)]
NOISE = [BlockNoise(name, 1, noise, {}) for name, noise in (("worst", 0.1), ("next", 0.01), ("least", 0.001))]


class Bench:
    """Passes the gate once certain blocks are in float."""

    def __init__(self, needed, model=None):
        self.needed, self.model, self.tried = set(needed), model, []

    def bundle(self, target, recipe, *, waive=None):
        self.tried.append(recipe.keep_float)
        missing = self.needed - set(recipe.keep_float)
        if missing and not waive:
            figures = {"map50": {"compiled": 0.9 - 0.1 * len(missing)}}
            raise GateFailed("the gate failed", remedy="-", report={"metrics": figures})
        gate = types.SimpleNamespace(metrics={"map50": types.SimpleNamespace(compiled=0.9)})
        return types.SimpleNamespace(manifest=types.SimpleNamespace(gate=gate, recipe=recipe))

    def stage(self, name, done, total):
        pass


class Clock:
    """A fake timer: what each name adds to the time when it stays in float."""

    def __init__(self, **costs):
        self.costs = costs

    def compile(self, keep):
        files = {"model": repr([n for n in keep if n in self.costs]).encode()}
        return types.SimpleNamespace(keep=keep, files=files)

    def compare(self, before, after):
        first, second = (0.5 + sum(self.costs.get(n, 0) for n in a.keep) for a in (before, after))
        return first, second, second < 0.97 * first


@pytest.fixture
def searched(monkeypatch):
    def run(bench, clock=None, *, budget=1.0, waive=None, noise=NOISE):
        monkeypatch.setattr(mixed, "is_installed", lambda target: clock is not None)
        monkeypatch.setattr(mixed, "Timer", lambda *a: clock)
        monkeypatch.setattr(mixed, "noise", lambda *a: list(noise))
        monkeypatch.setattr(mixed, "faster", lambda *a: ())
        found = mixed.Search(budget=budget)
        return mixed.bundle(bench, None, RECIPE, found=found, waive=waive), found

    return run


def test_blocks_go_back_to_float_the_most_harmful_first_until_the_gate_passes(searched):
    bench = Bench({"next"})
    bundle, found = searched(bench, Clock(worst=0.1, next=0.1))
    assert bundle.manifest.recipe.keep_float == ("worst", "next")
    assert bench.tried == [(), ("worst",), ("worst", "next")]
    assert found.passed
    assert [(s.left_in_float, s.outcome) for s in found.steps] == [(("worst",), "kept"), (("next",), "kept")]
    # What each bought in accuracy and cost in time.
    assert found.start["map50"] == pytest.approx(0.8)
    assert [s.metrics["map50"] for s in found.steps] == pytest.approx([0.8, 0.9])
    assert [s.after - s.before for s in found.steps] == pytest.approx([0.1, 0.1])


def test_a_block_over_the_budget_stays_in_int8(searched):
    bundle, found = searched(Bench({"next"}), Clock(worst=0.4, next=0.1), budget=0.8)
    assert bundle.manifest.recipe.keep_float == ("next",)
    assert found.steps[0].outcome == "over budget"


def test_what_passes_at_once_is_left_alone(searched):
    bundle, found = searched(Bench(()), Clock())
    assert bundle.manifest.recipe.keep_float == ()
    assert found.passed
    assert not found.steps


def test_where_nothing_passes_the_failure_says_what_was_in_float_and_what_harms(searched):
    match = r"with worst, least in float.*next would take.*worst \(10\.0 dB\)"
    with pytest.raises(GateFailed, match=match) as caught:
        searched(Bench({"next"}), Clock(next=0.6))
    assert caught.value.report["keep_float"] == ["worst", "least"]
    assert caught.value.report["blocks"]["worst"] == 0.1


def test_a_waiver_accepts_what_a_search_ended_with(searched):
    bundle, _ = searched(Bench({"never"}), waive="a reason")
    assert bundle.manifest.recipe.keep_float == ("worst", "next", "least")


@pytest.mark.parametrize(
    ("clock", "kept", "outcomes"),
    [
        (Clock(Mul=-0.2), ("Mul",), ["kept"]),
        (Clock(Mul=0.2), (), ["not faster"]),
        (Clock(), (), ["no difference"]),
    ],
)
def test_kinds_stay_in_float_only_where_that_is_faster(toy_onnx, clock, kept, outcomes):
    found = mixed.Search()
    assert mixed.faster(Bench((), SourceModel(toys.SPEC, toy_onnx)), clock, found) == kept
    assert [s.outcome for s in found.steps] == outcomes


def test_what_feeds_each_other_is_tried_together_and_views_are_not_tried():
    def op(name, kind, inputs):
        return Operator(name, kind, tuple(inputs.split()), (name,), "net")

    chain = [op("a", "MatMul", "x"), op("b", "Softmax", "a"), op("c", "Reshape", "b"), op("d", "Concat", "c")]
    found = mixed.candidates(chain)
    assert {("MatMul",), ("Softmax",), ("Concat",), ("MatMul", "Softmax")} <= set(found)
    assert not [c for c in found if "Reshape" in c]


def test_the_command_searches_and_draws(toy_onnx, tmp_path, capsys, monkeypatch):
    pytest.importorskip("pycocotools", reason="host tool not installed")
    pytest.importorskip("matplotlib", reason="host tool not installed")
    from edge_sdk import zoo
    from edge_sdk.cli import main

    monkeypatch.setattr(zoo, "spec", lambda name: toys.SPEC)
    monkeypatch.setattr(mixed, "ROUNDS", 4)
    recipe = tmp_path / "own.toml"
    text = 'name = "own"\nprecision = "int8-mixed"\ncalibration_items = 16\n[gate.max_drop]\nmap50 = 0.2\n'
    recipe.write_text(text)
    toys.write_pictures(tmp_path / "calibration", 20, 1, labelled=False)
    toys.write_pictures(tmp_path / "evaluation", 40, 2)
    common = ["build", "toy", "--onnx", str(toy_onnx), "--target", "onnxruntime"]
    common += ["--evaluation", str(tmp_path / "evaluation"), "--calibration", str(tmp_path / "calibration")]
    common += ["-o", str(tmp_path / "x.edge")]
    assert main([*common, "--recipe", str(recipe), "--report", str(tmp_path / "r.json")]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert len(report["blocks"]) == 6
    assert report["search"]["passed"]
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("*.partial"))
    capsys.readouterr()
    assert main([*common, "--recipe", "fp32", "--report", str(tmp_path / "f.json")]) == 2
    assert "quantizes no activation" in capsys.readouterr().err
    assert main([*common, "--recipe", str(recipe), "--report", str(tmp_path / "f.txt")]) == 2
    assert main([*common, "--recipe", str(recipe), "--latency-budget", "0"]) == 2


@pytest.mark.parametrize(
    ("spread", "gain", "sure"), [(0.01, 0.9, True), (0.01, 1.0, False), (1.0, 0.9, False)]
)
def test_noise_is_not_called_a_gain(toy_onnx, monkeypatch, spread, gain, sure):
    """Two that take the same time but for ``gain``, on a machine whose other work changes each by ``spread``."""

    def turns(calls, inputs, rounds):
        rng = np.random.default_rng(0)
        before, after, whole = np.exp(rng.normal(0, spread, (3, rounds)))
        return {"float": 2e6 * whole, "before": 1e6 * before, "after": 1e6 * gain * after}

    monkeypatch.setattr(mixed, "take_turns", turns)
    target, bench = find_target("onnxruntime"), Bench((), SourceModel(toys.SPEC, toy_onnx))
    bench.probes = lambda: FRAMES

    def compile_some(target, recipe, *, items=None):
        ranges = target.calibrate(bench.model, recipe=recipe, frames=FRAMES) if recipe.calibrated else None
        return target.compile(bench.model, recipe=recipe, ranges=ranges)

    bench.compile = compile_some
    timer = mixed.Timer(bench, target, RECIPE)
    before, _, faster = timer.compare(timer.compile(()), timer.compile(("Mul",)))
    assert faster is sure
    assert before == pytest.approx(0.5, rel=2 * spread)


def test_half_of_the_noise_goes_back_to_float_in_a_round(searched):
    bench = Bench({"e"})
    _, found = searched(bench, noise=[BlockNoise(name, 1, 0.1, {}) for name in "abcdefgh"])
    assert bench.tried == [(), tuple("abcd"), tuple("abcdef")]
    # Only the last block of a round has the gate's figures.
    assert [bool(s.metrics) for s in found.steps] == [False, False, False, True, False, True]
