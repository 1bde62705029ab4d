"""The kit itself: a target that breaks a promise fails the check of that promise, and a crash is an outcome."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.adapter import (
    Ownership,
    SessionBase,
    TargetBase,
    check_recipe,
    check_session_tensors,
    engine_options,
)
from edge_sdk.cli import main
from edge_sdk.errors import InferFailed, InputError, LoadFailed, MissingDependency, UnknownTarget
from edge_sdk.target import CPU, Artifact
from edge_sdk.tensors import check_tensors
from edge_targets import conformance
from edge_targets.conformance import suite
from edge_targets.conformance.network import DETECTOR, compute
from edge_targets.conformance.several_inputs import CLIP, PAIR

NETWORKS = {n.spec.name: n for n in (DETECTOR, PAIR, CLIP)}

pytest.importorskip("onnx", reason="host tool not installed")


class Honest(TargetBase):
    """A target in numpy that keeps every promise; subclasses break one each."""

    name = "honest"
    distribution = "honest"
    modules = ("honest_engine",)

    def compile(self, model, *, recipe, ranges=None):
        check_recipe(self.name, recipe, precisions=("fp32",))
        names = (tuple(t.name for t in tensors) for tensors in (model.spec.inputs, model.spec.outputs))
        return Artifact({"model": b"the network"}, *names)

    def load(self, artifact, spec, *, options):
        engine_options(self, options)
        try:
            __import__("honest_engine")
        except ModuleNotFoundError:
            pass  # it is this file
        except ImportError as error:
            raise MissingDependency("no engine", remedy="pip install honest-engine") from error
        if options.devices not in ((), (CPU,)):
            raise LoadFailed(f"{self.name}: no such device", remedy="ask for CPU")
        if artifact.files.get("model") != b"the network":
            raise LoadFailed(f"{self.name}: not the network", remedy="build it again")
        own = NETWORKS[spec.name].spec
        check_session_tensors(
            spec, "honest", {t.name: (t.shape, t.dtype) for t in (*own.inputs, *own.outputs)}
        )
        return self.session(spec)

    def session(self, spec):
        return HonestSession(spec)


class HonestSession(SessionBase):
    def __init__(self, spec):
        self.inputs, self.outputs, self.closed = spec.inputs, spec.outputs, False
        self.ownership = Ownership(self)
        self.network = NETWORKS[spec.name]

    def infer(self, inputs):
        with self.ownership:
            return self.checked(inputs)

    def checked(self, inputs):
        try:
            check_tensors(self.inputs, inputs)
            return self.answer(inputs)
        except (RuntimeError, InputError) as error:
            raise InferFailed("honest: it failed", remedy="load it again") from error

    def answer(self, inputs):
        return self.network.compute(inputs)

    def vendor_call(self, inputs):
        return lambda: self.answer(inputs)

    def close(self):
        if self.ownership.end():
            self.closed = True


def liar(**methods):
    """A target whose session has these methods instead."""
    session = type("Liar", (HonestSession,), methods)
    return type("LyingTarget", (Honest,), {"session": lambda self, spec: session(spec)})()


def lying_target(**methods):
    return type("LyingTarget", (Honest,), methods)()


def first_answer(self, inputs):
    """The bug of engines that wrap a canvas once and never look again."""
    if not hasattr(self, "kept"):
        self.kept = self.network.compute(inputs)
    return self.kept


SHARED = DETECTOR.compute(DETECTOR.inputs(0))


def shared_answer(self, inputs):
    for name, values in compute(inputs["pixels"]).items():
        SHARED[name][...] = values
    return SHARED


def swapped(self, inputs):
    return compute(inputs["pixels"][..., [1, 0, 2]])


def noisy(self, inputs):
    rng, found = np.random.default_rng(), self.network.compute(inputs)
    return {n: v + rng.normal(0, 1e-6, v.shape).astype(v.dtype) for n, v in found.items()}


def half(self, inputs):
    return {n: v.astype(np.float16) for n, v in self.network.compute(inputs).items()}


def unowned(self, inputs):
    return self.checked(inputs)


def unchecked(self, inputs):
    return compute(np.resize(inputs["pixels"], (1, 64, 64, 3)))


def writes(self, inputs):
    inputs["pixels"][...] = inputs["pixels"]  # fails on what is read-only
    return compute(inputs["pixels"])


def by_place(self, inputs):
    """The bug of engines that take inputs by their order."""
    names = [t.name for t in self.inputs]
    return self.network.compute(dict(zip(names, inputs.values(), strict=True)))


def keeps_vectors(self, inputs):
    """The bug of engines that copy a small input once."""
    if not hasattr(self, "vector"):
        self.vector = inputs["vector"].copy()
    return self.network.compute({**inputs, "vector": self.vector})


def remembers(self, inputs):
    """The bug of engines that go on with the input of before."""
    self.before = {**getattr(self, "before", {}), **inputs}
    return self.network.compute(self.before)


def without_state(self, inputs):
    return self.network.compute({"clip": inputs["clip"], "state": np.zeros_like(inputs["state"])})


def drifting(self, inputs):
    found = self.network.compute(inputs)
    return {**found, "next_state": found["next_state"] * np.float32(1.001)}


def binds_for_good(self, inputs):
    """The bug of a vendor's call whose arrays stay where ours were."""
    self.answer = lambda _: self.network.compute(inputs)
    return lambda: self.answer(inputs)


class Random(Honest):
    def compile(self, model, *, recipe, ranges=None):
        made = super().compile(model, recipe=recipe, ranges=ranges)
        return dataclasses.replace(made, fingerprint={"serial": str(id(made))})


LIES = {
    "outputs_have_the_specs_names_shapes_and_types": liar(answer=half),
    "it_computes_what_the_network_says": liar(answer=swapped),
    "it_finds_the_square": liar(answer=swapped),
    "the_same_frame_gives_the_same_answer": liar(answer=noisy),
    "answers_hold_until_the_next_frame_and_holding_them_hinders_nothing": liar(answer=first_answer),
    "a_reused_canvas_is_read_anew": liar(answer=first_answer),
    "a_read_only_frame_is_no_problem": liar(answer=writes),
    "a_read_only_view_of_a_reused_canvas_is_read_anew": liar(answer=first_answer),
    "pixels_of_another_shape_or_type_are_an_error_and_the_session_goes_on": liar(infer=unchecked),
    "two_sessions_do_not_share_their_answers": liar(answer=shared_answer),
    "more_threads_give_the_same_faces": lying_target(
        load=lambda self, a, s, options: (
            liar(answer=swapped).session(s) if options.threads == 2 else HonestSession(s)
        )
    ),
    "closing_twice_is_fine_and_inferring_afterwards_is_an_error": liar(close=lambda self: None),
    "a_call_during_a_call_is_refused_and_so_is_closing": liar(infer=unowned),
    "a_process_forked_from_the_one_that_loaded_is_refused": liar(infer=unowned),
    "every_input_reaches_the_network_by_its_name": liar(infer=by_place),
    "an_input_that_is_written_in_place_is_read_anew": liar(answer=keeps_vectors),
    "an_input_that_is_missing_is_an_error_and_the_session_goes_on": liar(infer=remembers),
    "a_clip_and_a_state_give_what_the_network_says": liar(answer=without_state),
    "a_state_that_is_fed_back_drifts_no_more_than_the_precision_allows": liar(answer=drifting),
    "the_vendors_own_call_answers_and_disturbs_no_other_frame": liar(vendor_call=binds_for_good),
    "an_option_that_it_does_not_have_is_refused_by_name": lying_target(
        load=lambda self, a, s, options: HonestSession(s)
    ),
    "it_says_where_it_runs": liar(device=""),
    "a_device_that_does_not_exist_is_refused": lying_target(
        load=lambda self, a, s, options: HonestSession(s)
    ),
    "a_damaged_artifact_is_refused": lying_target(load=lambda self, a, s, options: HonestSession(s)),
    "an_artifact_without_its_file_is_refused": lying_target(
        load=lambda self, a, s, options: a.files["model"]
    ),
    "an_artifact_of_another_network_is_refused_by_tensor": lying_target(
        load=lambda self, a, s, options: HonestSession(s)
    ),
    "compiling_twice_gives_the_same_bytes": Random(),
    "a_recipe_that_it_cannot_follow_is_refused_by_name": lying_target(
        compile=lambda self, model, *, recipe, ranges=None: Artifact({"model": b"the network"}, (), ())
    ),
    "a_missing_engine_is_named_with_the_command_that_installs_it": lying_target(
        load=lambda self, a, s, options: HonestSession(s)
    ),
}


def test_every_check_has_a_liar():
    assert set(LIES) == {check.__name__ for check in conformance.CHECKS}


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_an_honest_target_passes(check, tmp_path):
    check(conformance.Kit.build(Honest(), "fp32", tmp_path))


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_a_broken_promise_is_found(check, tmp_path):
    kit = conformance.Kit.build(LIES[check.__name__], "fp32", tmp_path)
    with pytest.raises((conformance.NotConforming, InferFailed, AttributeError, ValueError)):
        check(kit)


# An outsider's package, as pip would have installed it.

OUTSIDE = """
import os
from edge_targets.test_conformance import Honest

class Outside(Honest):
    name = "outside"

    def load(self, artifact, spec, *, options):
        if len(artifact.files.get("model", b"")) == 5:  # cut in half
            os.kill(os.getpid(), 11)
        return super().load(artifact, spec, options=options)

TARGET = Outside()
"""


@pytest.fixture
def outside(tmp_path, monkeypatch):
    info = tmp_path / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edge_sdk.targets]\noutside = outside:TARGET\n")
    (tmp_path / "outside.py").write_text(
        OUTSIDE.replace("edge_targets.test_conformance", "conformance_liars")
    )
    (tmp_path / "conformance_liars.py").write_text(Path(__file__).read_text().split("def liar(")[0])
    (tmp_path / "honest_engine.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_crash_is_an_outcome_and_the_other_checks_run(outside):
    outcomes = conformance.examine("outside", ["fp32"])
    assert [o.check for o in outcomes] == ["compile", *(c.__name__ for c in conformance.CHECKS)]
    (crashed,) = [o for o in outcomes if not o.passed]
    assert crashed.check == "a_damaged_artifact_is_refused"
    assert "died of SIGSEGV" in crashed.problem


def test_the_command_tells_what_failed(outside, capsys):
    assert main(["conformance", "outside", "--precision", "fp32", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["conforms"] is False
    (outside / "outside.py").write_text((outside / "outside.py").read_text().replace("== 5", "== -1"))
    assert main(["conformance", "outside", "--precision", "fp32"]) == 0
    assert f"outside conforms: {len(conformance.CHECKS) + 1} of" in capsys.readouterr().out


def test_a_precision_that_the_target_does_not_make_is_not_counted(outside):
    outcomes = conformance.examine("outside", ["int8"])
    assert [o.passed for o in outcomes] == [None]
    assert main(["conformance", "outside", "--precision", "int8"]) == 1


def test_an_engine_that_is_not_here_is_not_examined(monkeypatch, capsys):
    monkeypatch.setattr(suite, "is_installed", lambda target: False)
    assert main(["conformance", "tensorrt"]) == 3
    assert "face-edge-sdk[tensorrt]" in capsys.readouterr().err


def test_wrong_names_are_wrong_use(capsys):
    with pytest.raises(UnknownTarget):
        conformance.examine("rocket")
    assert main(["conformance", "rocket"]) == 2
    assert main(["conformance", "onnxruntime", "--precision", "int3"]) == 2
    assert "fp32, fp16" in capsys.readouterr().err
