"""What the runtime relies on in a target, as checks that anybody can run: ours pass them, and so must an outsider's.

    edge-sdk conformance NAME

or, in a test, for each check of ``CHECKS``: ``check(kit)``. The networks they run are a detector in
:mod:`edge_targets.conformance.network` and those of :mod:`edge_targets.conformance.several_inputs`; the host tools of
the target and the package ``onnx`` must be installed.
"""

from __future__ import annotations

import builtins
import dataclasses
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.child import run_python
from edge_sdk.cli_common import stdout_is_ours
from edge_sdk.errors import (
    EdgeError,
    InferFailed,
    InputError,
    LoadFailed,
    MissingDependency,
    ModelBusy,
    UnsupportedRecipe,
)
from edge_sdk.schema import to_plain
from edge_sdk.spec import Precision
from edge_sdk.state import State
from edge_sdk.target import (
    Artifact,
    LoadOptions,
    Session,
    SourceModel,
    Target,
    find_target,
    infer,
    is_installed,
)
from edge_sdk.tasks.detection import DetectionTask
from edge_sdk.tensors import Array, Tensors, TensorSpec
from edge_sdk.verify import snr_db
from edge_targets.conformance import network as detector
from edge_targets.conformance.network import DETECTOR, Network
from edge_targets.conformance.several_inputs import CLIP, PAIR, STEPS

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int8-wonly")
MIN_SNR_DB: dict[Precision, float] = {"fp32": 90.0, "fp16": 40.0}
"""How close to the network computed in numpy an answer must be, in decibels; 20 for int8."""
INT8_MIN_SNR_DB = 20.0
UNSEEN = 1000
"""First seed of inputs that calibration does not see."""


class NotConforming(Exception):
    """A target does not do what the runtime relies on; the text says what was expected and what it did."""


@dataclass(frozen=True)
class Kit:
    """A target, and a network compiled by it in one precision.

    Attributes:
        target: under examination.
        precision: of the artifact.
        folder: for the float files.
        network: that was compiled.
        model: its float files.
        artifact: what the target made of it.
    """

    target: Target
    precision: Precision
    folder: Path
    network: Network
    model: SourceModel
    artifact: Artifact
    _others: dict[str, Kit] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def build(cls, target: Target, precision: Precision, folder: Path, network: Network = DETECTOR) -> Kit:
        """Compile a network.

        Args:
            target: to examine.
            precision: to compile in.
            folder: for the float files.
            network: to compile.

        Raises:
            UnsupportedRecipe: the target does not make this precision.
            MissingDependency: a tool is not installed.
            CompileFailed: the target's tools refused the network.
        """
        if importlib.util.find_spec("onnx") is None:
            raise MissingDependency("onnx cannot be imported", remedy="pip install 'face-edge-sdk[host]'")
        onnx = network.write_onnx(folder / f"{network.spec.name}.onnx")
        tflite = None
        if importlib.util.find_spec("ai_edge_litert") is not None:
            tflite = network.write_tflite(folder / f"{network.spec.name}.tflite")
        model = SourceModel(network.spec, onnx, tflite)
        artifact = _compile(target, precision, network, model)
        return cls(target, precision, folder, network, model, artifact)

    def on(self, network: Network) -> Kit:
        """The same target and precision with another network, compiled when it is first asked for."""
        name = network.spec.name
        if name not in self._others:
            self._others[name] = Kit.build(self.target, self.precision, self.folder, network)
        return self._others[name]

    @property
    def min_snr_db(self) -> float:
        """How close an answer must be, in decibels."""
        return MIN_SNR_DB.get(self.precision, INT8_MIN_SNR_DB)

    @contextmanager
    def session(self, threads: int = 1) -> Iterator[Session]:
        """A session of the artifact, closed at the end."""
        session = self.load(self.artifact, LoadOptions(threads=threads))
        try:
            yield session
        finally:
            session.close()

    def load(self, artifact: Artifact, options: LoadOptions | None = None) -> Session:
        """A session of any artifact."""
        return self.target.load(artifact, self.network.spec, options=options or LoadOptions(threads=1))

    def expect_right(self, outputs: Tensors, inputs: Tensors, what: str) -> None:
        """Raise NotConforming unless these are the network's answers to the inputs."""
        self.expect_all_right([outputs], [self.network.compute(inputs)], what)

    def expect_all_right(self, answers: Sequence[Tensors], expected: Sequence[Tensors], what: str) -> None:
        """Raise NotConforming unless answers, taken together, are close enough to those that are expected."""
        for name in expected[0]:
            right, found = (np.stack([tensors[name] for tensors in many]) for many in (expected, answers))
            if not (ratio := snr_db(right, found)) > self.min_snr_db:
                raise NotConforming(
                    f"{what}: output {name!r} is {ratio:.1f} dB from what the network computes, "
                    f"at least {self.min_snr_db:g} dB was expected"
                )


def _compile(target: Target, precision: Precision, network: Network, model: SourceModel) -> Artifact:
    recipe = detector.recipe(precision)
    if not recipe.calibrated:
        return target.compile(model, recipe=recipe)
    frames = [network.inputs(seed) for seed in range(recipe.calibration_items)]
    ranges = target.calibrate(model, recipe=recipe, frames=frames)
    return target.compile(model, recipe=recipe, ranges=ranges)


def _pixels(seed: int = 0) -> dict[str, Array]:
    """The detector's inputs."""
    return DETECTOR.inputs(seed)


def _canvas(array: Array) -> dict[str, Array]:
    """The detector's inputs on this array."""
    return {"pixels": array}


Check = Callable[[Kit], None]
CHECKS: list[Check] = []


def _check(function: Check) -> Check:
    CHECKS.append(function)
    return function


@_check
def outputs_have_the_specs_names_shapes_and_types(kit: Kit) -> None:
    """``infer`` answers with exactly the spec's tensors, and the session names the spec's."""
    spec = kit.network.spec
    with kit.session() as session:
        _expect(
            (session.inputs, session.outputs) == (spec.inputs, spec.outputs),
            f"the session says it takes {session.inputs} and gives {session.outputs}",
        )
        outputs = session.infer(_pixels())
        _expect(set(outputs) == {t.name for t in spec.outputs}, f"outputs are {sorted(outputs)}")
        for tensor in spec.outputs:
            try:
                tensor.check(outputs[tensor.name])
            except InputError as error:
                raise NotConforming(error.message) from error


@_check
def it_computes_what_the_network_says(kit: Kit) -> None:
    """Against numpy, on three pictures."""
    with kit.session() as session:
        for seed in range(3):
            kit.expect_right(session.infer(_pixels(seed)), _pixels(seed), f"picture {seed}")


@_check
def it_finds_the_square(kit: Kit) -> None:
    """From a picture to a box: preprocessing, engine, postprocessing."""
    image, boxes, classes = detector.picture(np.random.default_rng(4))
    task = DetectionTask(DETECTOR.spec)
    inputs, transform = task.preprocess(image)
    with kit.session() as session:
        found = task.postprocess(session.infer(inputs), transform)
    _expect(len(found) >= 1, "no square was found")
    _expect(bool(found.class_ids[0] == classes[0]), f"the square is called {found.labels[0]}")
    centre = (found.boxes[0, :2] + found.boxes[0, 2:]) / 2
    inside = (boxes[0, :2] <= centre).all() and (centre <= boxes[0, 2:]).all()
    _expect(bool(inside), f"the square {boxes[0]} was found at {found.boxes[0]}")


@_check
def the_same_frame_gives_the_same_answer(kit: Kit) -> None:
    """Bit for bit, five times."""
    with kit.session() as session:
        first = _copied(session.infer(_pixels()))
        for _ in range(4):
            _expect_equal(first, session.infer(_pixels()), "the same frame gave another answer")


@_check
def answers_hold_until_the_next_frame_and_holding_them_hinders_nothing(kit: Kit) -> None:
    """The caller may keep the arrays while it asks again."""
    with kit.session() as session:
        held = session.infer(_pixels(0))
        before = _copied(held)
        _expect_equal(before, held, "an answer changed by itself")
        kit.expect_right(session.infer(_pixels(1)), _pixels(1), "with an answer held")


@_check
def a_reused_canvas_is_read_anew(kit: Kit) -> None:
    """Preprocessing draws every frame on the same array."""
    canvas = detector.pixels(0)
    inputs = _canvas(canvas)
    with kit.session() as session:
        session.infer(inputs)
        canvas[...] = detector.pixels(1)
        kit.expect_right(session.infer(inputs), inputs, "a canvas drawn anew")


@_check
def a_read_only_frame_is_no_problem(kit: Kit) -> None:
    """Frames of cameras often are."""
    frozen = detector.pixels(2)
    frozen.setflags(write=False)
    with kit.session() as session:
        kit.expect_right(session.infer(_canvas(frozen)), _canvas(frozen), "a read-only frame")


@_check
def a_read_only_view_of_a_reused_canvas_is_read_anew(kit: Kit) -> None:
    """What a camera's mapped buffer looks like."""
    canvas = detector.pixels(0)
    view = canvas.view()
    view.setflags(write=False)
    with kit.session() as session:
        session.infer(_canvas(view))
        canvas[...] = detector.pixels(1)
        kit.expect_right(session.infer(_canvas(view)), _pixels(1), "a read-only view of a canvas drawn anew")


@_check
def pixels_of_another_shape_or_type_are_an_error_and_the_session_goes_on(kit: Kit) -> None:
    """InferFailed with a remedy, never a wrong answer."""
    with kit.session() as session:
        for wrong in (np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 64, 64, 3), np.float32)):
            with _raises(InferFailed, f"pixels {wrong.dtype} {wrong.shape}"):
                session.infer(_canvas(wrong))
            kit.expect_right(session.infer(_pixels()), _pixels(), "after wrong pixels")


@_check
def two_sessions_do_not_share_their_answers(kit: Kit) -> None:
    """Two models of one process."""
    with kit.session() as session, kit.session() as other:
        held = session.infer(_pixels(0))
        before = _copied(held)
        other.infer(_pixels(1))
        _expect_equal(before, held, "another session wrote into this one's answer")


@_check
def more_threads_give_the_same_faces(kit: Kit) -> None:
    """To a thousandth of a logit."""
    with kit.session(1) as session, kit.session(2) as other:
        one, two = session.infer(_pixels()), other.infer(_pixels())
        for name, values in one.items():
            _expect(np.allclose(values, two[name], atol=1e-3), f"output {name!r} differs with two threads")


@_check
def closing_twice_is_fine_and_inferring_afterwards_is_an_error(kit: Kit) -> None:
    """InferFailed, chained from what went wrong."""
    session = kit.load(kit.artifact)
    session.close()
    session.close()
    with _raises(InferFailed, "inferring on a closed session"):
        session.infer(_pixels())


class _Meddling(Mapping[str, Array]):
    """Inputs that do something else in the middle of the call that reads them, as another thread would."""

    def __init__(self, inputs: Tensors, meddle: Callable[[], object]) -> None:
        self._inputs, self._meddle = inputs, meddle

    def __getitem__(self, name: str) -> Array:
        self._meddle()
        return self._inputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)


@_check
def a_call_during_a_call_is_refused_and_so_is_closing(kit: Kit) -> None:
    """ModelBusy, while the first call goes on; see ``edge_sdk.ownership``."""
    came: list[BaseException | None] = []
    with kit.session() as session:

        def meddle() -> None:
            for act in (lambda: session.infer(_pixels(1)), session.close):
                try:
                    act()
                    came.append(None)
                except BaseException as error:
                    came.append(error)

        kit.expect_right(session.infer(_Meddling(_pixels(), meddle)), _pixels(), "a call that was disturbed")
        kit.expect_right(session.infer(_pixels(1)), _pixels(1), "the call after it")
    _expect(bool(came), "the inputs were not read by their names during the call")
    for error in came:
        _expect(
            isinstance(error, ModelBusy), f"a call or close during a call: ModelBusy expected, {error!r} came"
        )


@_check
def a_process_forked_from_the_one_that_loaded_is_refused(kit: Kit) -> None:
    """InferFailed instead of waiting for threads that are not there, and closing does nothing; not on Windows."""
    if not hasattr(os, "fork"):
        return
    with kit.session() as session:
        session.infer(_pixels())
        child = os.fork()
        if child == 0:
            code = 1
            try:
                session.infer(_pixels())
            except InferFailed:
                session.close()
                code = 0
            finally:
                os._exit(code)
        ended = time.monotonic() + 10
        while not (found := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > ended:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise NotConforming("a call in a forked process hung: InferFailed was expected")
            time.sleep(0.01)
        _expect(found[1] == 0, "a call in a forked process was not refused by InferFailed, or closing failed")
        kit.expect_right(session.infer(_pixels()), _pixels(), "after a fork")


@_check
def every_input_reaches_the_network_by_its_name(kit: Kit) -> None:
    """A crop beside a vector, in any order: against numpy."""
    pair = kit.on(PAIR)
    names = [t.name for t in PAIR.spec.inputs]
    seeds = range(UNSEEN, UNSEEN + 4)
    with pair.session() as session:
        for order in (names, names[::-1]):
            answers = []
            for seed in seeds:
                inputs = PAIR.inputs(seed)
                answers.append(_copied(session.infer({name: inputs[name] for name in order})))
            expected = [PAIR.compute(PAIR.inputs(seed)) for seed in seeds]
            pair.expect_all_right(answers, expected, f"inputs in the order {', '.join(order)}")


@_check
def an_input_that_is_written_in_place_is_read_anew(kit: Kit) -> None:
    """A vector that the caller keeps in one array, as it keeps state; the other input stays."""
    pair = kit.on(PAIR)
    inputs, answers, expected = PAIR.inputs(UNSEEN), list[Tensors](), list[Tensors]()
    with pair.session() as session:
        for seed in range(UNSEEN, UNSEEN + 4):
            inputs["vector"][...] = PAIR.inputs(seed)["vector"]
            answers.append(_copied(session.infer(inputs)))
            expected.append(PAIR.compute(inputs))
    pair.expect_all_right(answers, expected, "a vector written in place")


@_check
def an_input_that_is_missing_is_an_error_and_the_session_goes_on(kit: Kit) -> None:
    """InferFailed, never an answer to the input of before."""
    pair = kit.on(PAIR)
    whole = PAIR.inputs(UNSEEN)
    with pair.session() as session:
        right = _copied(session.infer(whole))
        for name in whole:
            with _raises(InferFailed, f"inputs without {name!r}"):
                session.infer({n: array for n, array in whole.items() if n != name})
            _expect_equal(right, session.infer(whole), "after a missing input: another answer")


@_check
def a_clip_and_a_state_give_what_the_network_says(kit: Kit) -> None:
    """Five axes of pixels beside a float vector: names, shapes, and values against numpy."""
    clip = kit.on(CLIP)
    seeds = range(UNSEEN, UNSEEN + 8)
    with clip.session() as session:
        answers = [_copied(session.infer(CLIP.inputs(seed))) for seed in seeds]
    for tensor in CLIP.spec.outputs:
        try:
            tensor.check(answers[0][tensor.name])
        except InputError as error:
            raise NotConforming(error.message) from error
    clip.expect_all_right(answers, [CLIP.compute(CLIP.inputs(seed)) for seed in seeds], "clips")


@_check
def a_state_that_is_fed_back_drifts_no_more_than_the_precision_allows(kit: Kit) -> None:
    """Several steps, each with the state of the one before: against numpy, which keeps a state of its own."""
    clip = kit.on(CLIP)
    theirs, ours = State(CLIP.spec), State(CLIP.spec)
    answers, expected = list[Tensors](), list[Tensors]()
    with clip.session() as session:
        for seed in range(UNSEEN, UNSEEN + STEPS):
            given = {"clip": CLIP.inputs(seed)["clip"]}
            answers.append(_copied(infer(session, given, theirs)))
            expected.append(CLIP.compute({**given, **ours.tensors}))
            ours.update(expected[-1])
    clip.expect_all_right(answers, expected, f"a state fed back over {STEPS} steps")


@_check
def the_vendors_own_call_answers_and_disturbs_no_other_frame(kit: Kit) -> None:
    """``vendor_call``, or InputError where the adapter offers none."""
    mine, theirs = _pixels(0), _pixels(1)
    with kit.session() as session:
        right = _copied(session.infer(mine))
        try:
            call = session.vendor_call(theirs)
        except InputError:
            return
        _expect(call() is not None, "the vendor's call gave nothing")
        _expect_equal(right, session.infer(mine), "after the vendor's call: another answer")


@_check
def it_says_where_it_runs(kit: Kit) -> None:
    """``device`` and ``notes`` are in every result and in ``info``."""
    with kit.session() as session:
        _expect(isinstance(session.device, str) and bool(session.device), f"device is {session.device!r}")
        _expect(all(isinstance(note, str) for note in session.notes), f"notes are {session.notes!r}")


@_check
def an_option_that_it_does_not_have_is_refused_by_name(kit: Kit) -> None:
    """InputError; see ``edge_sdk.adapter.engine_options``."""
    options = LoadOptions(threads=1, engine={"no_such_option": True})
    with _raises(InputError, "the option 'no_such_option'", naming="no_such_option"):
        kit.load(kit.artifact, options).close()


@_check
def a_device_that_does_not_exist_is_refused(kit: Kit) -> None:
    """Nothing falls back silently."""
    with _raises((InputError, LoadFailed), "the device 'no such device'"):
        kit.load(kit.artifact, LoadOptions(threads=1, devices=("no such device",))).close()


@_check
def a_damaged_artifact_is_refused(kit: Kit) -> None:
    """Empty, no model at all, and cut in half: LoadFailed that names the target."""
    for damage in (lambda d: b"", lambda d: b"no model", lambda d: d[: len(d) // 2]):
        files = {name: damage(data) for name, data in kit.artifact.files.items()}
        with _raises(LoadFailed, "a damaged artifact", naming=kit.target.name):
            kit.load(Artifact(files, kit.artifact.inputs, kit.artifact.outputs)).close()


@_check
def an_artifact_without_its_file_is_refused(kit: Kit) -> None:
    """LoadFailed that names the target."""
    with _raises(LoadFailed, "an artifact without its file", naming=kit.target.name):
        kit.load(Artifact({"other": b""}, kit.artifact.inputs, kit.artifact.outputs)).close()


@_check
def an_artifact_of_another_network_is_refused_by_tensor(kit: Kit) -> None:
    """LoadFailed that names the tensor; see ``edge_sdk.adapter.check_session_tensors``."""
    spec = dataclasses.replace(DETECTOR.spec)
    renamed = (
        TensorSpec(t.name, (1, 9, 9, 2), t.dtype, t.layout) if t.name == "cls8" else t for t in spec.outputs
    )
    object.__setattr__(spec, "outputs", tuple(renamed))  # a spec that its own checks would refuse
    with _raises(LoadFailed, "an artifact of another network", naming="cls8"):
        kit.target.load(kit.artifact, spec, options=LoadOptions(threads=1)).close()


@_check
def compiling_twice_gives_the_same_bytes(kit: Kit) -> None:
    """Bundles are named by their hash."""
    again = _compile(kit.target, kit.precision, kit.network, kit.model)
    _expect(again == kit.artifact, "the second compilation made other bytes")


@_check
def a_recipe_that_it_cannot_follow_is_refused_by_name(kit: Kit) -> None:
    """UnsupportedRecipe; see ``edge_sdk.adapter.check_recipe``."""
    odd: Any = "int4"
    recipe = dataclasses.replace(detector.recipe("fp32"), name="odd", precision=odd)
    with _raises(UnsupportedRecipe, "a recipe of precision int4", naming="odd"):
        kit.target.compile(kit.model, recipe=recipe)


@_check
def a_missing_engine_is_named_with_the_command_that_installs_it(kit: Kit) -> None:
    """MissingDependency whose remedy is a pip command."""
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] in kit.target.modules:
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    builtins.__import__ = without
    try:
        with _raises(MissingDependency, "loading without the engine") as caught:
            kit.load(kit.artifact).close()
    finally:
        builtins.__import__ = real
    _expect("pip install" in caught[0].remedy, f"the remedy is {caught[0].remedy!r}, no pip command")


@dataclass(frozen=True)
class Outcome:
    """What came of one check in one precision.

    Attributes:
        check: name of it.
        precision: of the artifact.
        passed: None where the precision cannot be made here.
        problem: what was expected and what happened; empty where it passed.
        remedy: what to install; empty where nothing is missing.
    """

    check: str
    precision: Precision
    passed: bool | None
    problem: str = ""
    remedy: str = ""


def examine(
    name: str,
    precisions: Sequence[Precision] = PRECISIONS,
    *,
    timeout_s: float = 300.0,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> list[Outcome]:
    """Run every check in every precision that the target makes, in processes of their own: a crash is an outcome too.

    Args:
        name: of the target, as ``find_target`` knows it.
        precisions: to try; one that the target refuses by UnsupportedRecipe is left out of the verdict.
        timeout_s: for all checks of a precision; then the one that runs has failed.
        progress: called with (stage, done, of).

    Raises:
        UnknownTarget: no such target.
        MissingDependency: the engine is not installed, or no precision can be made because a tool is not.
    """
    if not is_installed(target := find_target(name)):
        raise MissingDependency(
            f"the engine of {name} is not installed: no module {' or '.join(target.modules)}",
            remedy=f"pip install 'face-edge-sdk[{target.distribution}]', or what else brings it",
        )
    outcomes: list[Outcome] = []
    for done, precision in enumerate(precisions):
        progress(f"{name} {precision}", done, len(precisions))
        remaining = ["compile", *(check.__name__ for check in CHECKS)]
        while remaining:
            ended = run_python(
                ("-m", "edge_targets.conformance", name, precision, ",".join(remaining)), timeout_s=timeout_s
            )
            answered = [Outcome(**json.loads(line)) for line in ended.lines if line[:1] == "{"]
            outcomes += answered
            compiled = not answered or answered[0].check != "compile" or answered[0].passed
            remaining = remaining[len(answered) :] if compiled else []
            if remaining:  # it died of the first of them
                problem = ended.problem or "ended without an answer"
                told = f"the process {problem}" + (f": {ended.said}" if ended.said else "")
                outcomes.append(Outcome(remaining[0], precision, False, told))
                remaining = [] if remaining[0] == "compile" else remaining[1:]
    missing = [o for o in outcomes if o.remedy]
    if missing and all(outcome.passed is None for outcome in outcomes):
        raise MissingDependency(missing[0].problem, remedy=missing[0].remedy)
    return outcomes


def _outcomes(
    target: Target, precision: Precision, checks: Collection[str], folder: Path
) -> Iterator[Outcome]:
    """One after another, in this process."""
    try:
        kit = Kit.build(target, precision, folder)
    except UnsupportedRecipe as error:
        yield Outcome("compile", precision, None, error.message)
        return
    except MissingDependency as error:
        yield Outcome("compile", precision, None, error.message, error.remedy)
        return
    except Exception as error:  # an outsider's code: whatever it raises is its answer
        yield Outcome("compile", precision, False, _told(error))
        return
    if "compile" in checks:
        yield Outcome("compile", precision, True)
    for check in CHECKS:
        if check.__name__ in checks:
            try:
                check(kit)
            except Exception as error:  # an outsider's code: whatever it raises is its answer
                yield Outcome(check.__name__, precision, False, _told(error))
            else:
                yield Outcome(check.__name__, precision, True)


def _told(error: Exception) -> str:
    if isinstance(error, NotConforming):
        return str(error)
    return f"{type(error).__name__}: {error.message if isinstance(error, EdgeError) else error}"


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise NotConforming(problem)


def _expect_equal(expected: Tensors, found: Tensors, problem: str) -> None:
    for name, values in expected.items():
        _expect(np.array_equal(values, found[name]), f"{problem} ({name})")


def _copied(outputs: Tensors) -> dict[str, Array]:
    return {name: values.copy() for name, values in outputs.items()}


@contextmanager
def _raises(
    kinds: type[EdgeError] | tuple[type[EdgeError], ...], what: str, naming: str = ""
) -> Iterator[list[EdgeError]]:
    """The block must raise one of our errors, with a remedy, and with ``naming`` in its message."""
    caught: list[EdgeError] = []
    names = " or ".join(k.__name__ for k in (kinds if isinstance(kinds, tuple) else (kinds,)))
    try:
        yield caught
    except kinds as error:
        _expect(bool(error.remedy), f"{what}: {names} without a remedy")
        _expect(naming in error.message, f"{what}: {error.message!r} does not name {naming!r}")
        caught.append(error)
        return
    except NotConforming:
        raise
    except Exception as error:  # an outsider's code may raise anything
        raise NotConforming(f"{what}: expected {names}, got {_told(error)}") from error
    raise NotConforming(f"{what}: expected {names}, nothing was raised")


def run(name: str, precision: Any, checks: str) -> None:
    """What :func:`examine` runs in a child: prints an outcome per line, each before the next check begins."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = _outcomes(find_target(name), precision, checks.split(","), Path(folder))
        while True:
            with stdout_is_ours():
                outcome = next(outcomes, None)
            if outcome is None:
                return
            sys.stdout.write(json.dumps(to_plain(outcome)) + "\n")
            sys.stdout.flush()
