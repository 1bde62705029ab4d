"""A loaded model: a session of some engine with the task that surrounds it."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import numpy as np
import numpy.typing as npt

from edge_sdk import zoo
from edge_sdk.bundle import SUFFIX, Bundle, GateResult, GoldenCase
from edge_sdk.engine_cache import default_cache
from edge_sdk.errors import ChecksumMismatch, EdgeError, InputError, MissingDependency
from edge_sdk.image import Color, Image, check_boxes, check_image
from edge_sdk.profile import Profile, read_profile
from edge_sdk.results import Classifications, Detections, Liveness
from edge_sdk.spec import ModelSpec
from edge_sdk.successor import Successor
from edge_sdk.target import (
    CPU,
    Artifact,
    LoadOptions,
    Session,
    Target,
    available_targets,
    find_target,
    is_installed,
    stand_in,
)
from edge_sdk.tasks import AnyTask, ClassificationTask, LivenessTask, task_of
from edge_sdk.tensors import Array
from edge_sdk.timing import StageTimes, now_ns

_LOG = logging.getLogger("edge_sdk")

Result = TypeVar("Result", bound=Detections | Classifications | Liveness)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is loaded.

    Attributes:
        name: of the model.
        task: ``"detection"``, ``"classification"`` or ``"liveness"``.
        labels: class names.
        input_size: (width, height) of the network's canvas.
        target: engine that runs it.
        precision: of its graph.
        gate: what the accuracy gate measured; its ``waiver`` says why the bundle exists although it failed.
        licence: of the weights.
        sha256: identity of the bundle.
        chosen: why this bundle was taken.
        device: that runs the engine, such as ``"CPU"``.
        notes: what the engine says of this load: devices that were not used and why, operators that were not
            accelerated.
    """

    name: str
    task: str
    labels: tuple[str, ...]
    input_size: tuple[int, int]
    target: str
    precision: str
    gate: GateResult
    licence: str
    sha256: str
    chosen: str
    device: str = CPU
    notes: tuple[str, ...] = ()


class Model(Generic[Result]):
    """Callable on frames; a context manager.

    For a type checker, say what it answers: ``detector: Model[Detections] = edge_sdk.load("fer-yolo11n")``.

    One model serves one thread at a time: its buffers are reused from frame to frame.

    Args:
        session: of the engine; the model closes it.
        task: that surrounds it.
        info: for people.
        successor: of the session, which takes over between two frames once it is loaded.
    """

    def __init__(
        self, session: Session, task: AnyTask, info: ModelInfo, successor: Successor | None = None
    ) -> None:
        self.session, self.task, self.info = session, task, info
        self._answerer = f"{info.target}-{info.precision}"
        self._successor = successor
        self._closed = False

    @property
    def spec(self) -> ModelSpec:
        """The network's spec."""
        return self.task.spec

    @property
    def pending(self) -> str | None:
        """Engine that is being built and will take over; None if there is none."""
        return None if self._successor is None else self._successor.target

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait, at most so long, until no engine is pending; returns whether that is so."""
        if self._successor is not None and self._successor.wait(timeout_s):
            self._take_over(self._successor)
        return self._successor is None

    def _take_over(self, successor: Successor) -> None:
        """Go on with the session that was waited for, or without it."""
        self._successor = None
        try:
            session = successor.take()
        except EdgeError as error:
            note = f"{successor.target} could not take over: {error}"
            warnings.warn(
                f"{self.info.name} stays on {self.info.target}: {note}", RuntimeWarning, stacklevel=3
            )
            self.info = replace(self.info, notes=(*self.info.notes, note))
            return
        self.session.close()
        self.session = session
        self.info = replace(self.info, target=successor.target, device=session.device, notes=session.notes)
        self._answerer = f"{self.info.target}-{self.info.precision}"

    def __call__(self, image: Image, *, boxes: npt.ArrayLike | None = None, color: Color = "rgb") -> Result:
        """Find the faces of a frame, or say what given faces show.

        Args:
            image: (H, W, 3) uint8, any size.
            boxes: for a classifier: (N, 4) x1, y1, x2, y2 in pixels of each face, such as a detector's ``.boxes``; None
                takes the picture as one crop. A detector finds its own.
            color: order of the channels; ``"bgr"`` for a frame from OpenCV.

        Returns:
            ``Detections`` from a detector, ``Classifications`` from a classifier, ``Liveness`` from a liveness network,
            which always needs boxes.

        Raises:
            InputError: not such a frame or boxes, or the model is closed.
            InferFailed: the engine failed.
        """
        start = now_ns()
        check_image(image)
        if color not in ("rgb", "bgr"):
            raise InputError(f"color must be 'rgb' or 'bgr', got {color!r}", remedy="name the order")
        if self._closed:
            raise InputError("the model is closed", remedy="load it again")
        if self._successor is not None and self._successor.done:
            self._take_over(self._successor)
        task = self.task
        if isinstance(task, ClassificationTask):
            return cast(Result, self._classify(task, image, boxes, color, start))
        if boxes is not None:
            raise InputError(f"{self.info.name} finds faces itself", remedy="leave boxes out")
        pixels, transform = task.preprocess(image, color)
        prepared = now_ns()
        tensors = self.session.infer(pixels)
        inferred = now_ns()
        found = task.postprocess(tensors, transform)
        times = StageTimes(prepared - start, inferred - prepared, now_ns() - inferred)
        return cast(Result, found.answered(times, self._answerer, self.session.device))

    def _classify(
        self, task: ClassificationTask, image: Image, boxes: npt.ArrayLike | None, color: Color, start: int
    ) -> Classifications | Liveness:
        """One face after another; the times are those of all faces together."""
        checked = None if boxes is None else check_boxes(boxes, image)
        reasons: Sequence[str] = ()
        if isinstance(task, LivenessTask):
            if checked is None:
                raise InputError(
                    f"{self.info.name} needs the faces' boxes: how much it sees around them is part of the model",
                    remedy="give boxes=, such as a detector's .boxes",
                )
            reasons = task.undecidable(image, checked)
        preparing = inferring = 0
        answers = []
        for box in (None,) if checked is None else checked:
            pixels, _ = task.preprocess(image, color, box)
            prepared = now_ns()
            tensors = self.session.infer(pixels)
            inferred = now_ns()
            answers.append(task.logits(tensors))
            preparing, inferring, start = (
                preparing + prepared - start,
                inferring + inferred - prepared,
                inferred,
            )
        if isinstance(task, LivenessTask):
            seen = task.decide(answers, reasons)
            times = StageTimes(preparing, inferring, now_ns() - start)
            return Liveness(
                seen.scores, seen.decisions, seen.reasons, times, self._answerer, self.session.device
            )
        found = task.postprocess(answers)
        times = StageTimes(preparing, inferring, now_ns() - start)
        return Classifications(found.probs, found.names, times, self._answerer, self.session.device)

    def close(self) -> None:
        """Free the engine; a second call does nothing. What is being built goes on, into the engine cache."""
        self._closed = True
        if self._successor is not None:
            self._successor.abandon()
            self._successor = None
        self.session.close()

    def __enter__(self) -> Model[Result]:
        """Return the model."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the model."""
        self.close()


def load(
    model: str | Path,
    *,
    target: str | None = None,
    prefer: Sequence[str] = (),
    precision: str | None = None,
    threads: int | None = None,
    device: str | Sequence[str] | None = None,
    profile: str | Path | None = None,
    options: LoadOptions | None = None,
    confidence: float | None = None,
    verify: bool = True,
) -> Model[Any]:
    """Load a model by zoo name or from a bundle file.

    A zoo name takes, among the bundles of the model whose engine is installed here, the fastest that passed its gate.
    What is asked for is required: nothing is replaced silently. An engine that compiles at load keeps what it compiled
    for the next time, in ``$EDGE_SDK_ENGINE_CACHE`` or the user's cache folder; ``off`` keeps nothing.

    Args:
        model: zoo name, or path of an ``.edge`` file.
        target: engine that must run it.
        prefer: engines that may run it, in this order, instead of one that must: ``("tensorrt", "onnxruntime")`` lets
            onnxruntime answer from a bundle for TensorRT while this device builds the engine, or where there is none.
            Every result says who answered; ``model.pending`` and ``model.wait()`` tell of the handover.
        precision: that its graph must have.
        threads: of the engine; None takes the number of cores, at most 4.
        device: where the engine must run, such as ``"GPU"``; several are tried in that order, and the results and
            ``info.notes`` say which it became and why. None takes the processor.
        profile: board, by name or TOML file: its engine, threads and device hold where nothing else is asked for.
        options: everything else that an engine may be told; ``threads`` and ``device`` beside it win.
        confidence: report faces from this score on; None takes the model's.
        verify: run the golden vectors once: the device proves itself, and is warm afterwards.

    Raises:
        InputError: unknown name, no bundle of that target and precision, or an option that the engine does not have.
        BundleError: the bundle is damaged, or the golden vectors fail here.
        MissingDependency: the engine is not installed.
        LoadFailed: the engine refused the artifact, or a device that was required is not there.
    """
    board = None if profile is None else read_profile(profile)
    settings = _settings(options or LoadOptions(), threads, device, board)
    if prefer and target is not None:
        raise InputError(
            "target says which engine must run it, prefer which ones may", remedy="give one of them"
        )
    if not prefer:
        target = target or (board.engine if board else None)
    if names_a_file(model):
        bundle, chosen = Bundle.open(model), f"the file {model}"
    else:
        bundle, chosen = _choose(str(model), target, precision, tuple(prefer))
    manifest = bundle.manifest
    for what, asked, is_ in (
        ("target", target, manifest.target),
        ("precision", precision, manifest.recipe.precision),
    ):
        if asked is not None and asked != is_:
            raise InputError(
                f"{model} has {what} {is_!r}, {asked!r} was asked for",
                remedy=f"leave {what} out, or name another bundle",
            )
    if manifest.gate.waiver is not None:
        _LOG.warning(
            "%s did not pass its accuracy gate; waived: %s (edge-sdk inspect shows what was lost)",
            model,
            manifest.gate.waiver,
        )
    task = task_of(manifest.spec, confidence=confidence)
    own = find_target(manifest.target)
    now, later, why = _serving(own, bundle.artifact, manifest.spec, tuple(prefer), settings)
    # The preferred engine's options mean nothing to the one that stands in for it.
    mine = settings if now is own else LoadOptions(settings.threads, settings.cache)
    cases = bundle.golden() if verify else ()

    def proven(target: Target, options: LoadOptions, task: AnyTask) -> Session:
        session = target.load(bundle.artifact, manifest.spec, options=options)
        try:
            for case in cases:
                check_golden(session, task, case, manifest.golden.min_snr_db)
        except BaseException:
            session.close()
            raise
        return session

    session = proven(now, mine, task)
    try:
        _, height, width, _ = manifest.spec.input.shape
        info = ModelInfo(
            name=manifest.spec.name,
            task=manifest.spec.task,
            labels=manifest.spec.labels,
            input_size=(width, height),
            target=manifest.target if now is own else now.name,
            precision=manifest.recipe.precision,
            gate=manifest.gate,
            licence=manifest.spec.licence,
            sha256=bundle.sha256,
            chosen=chosen,
            device=session.device,
            notes=(*session.notes, *why),
        )
        if later is None:
            return Model(session, task, info)
        # A task of its own: a task draws every frame on the same canvas.
        successor = Successor(later.name, lambda: proven(later, settings, task_of(manifest.spec)))
        return Model(session, task, info, successor)
    except BaseException:
        session.close()
        raise


def _serving(
    own: Target, artifact: Artifact, spec: ModelSpec, prefer: tuple[str, ...], options: LoadOptions
) -> tuple[Target, Target | None, tuple[str, ...]]:
    """The target that loads now, the one that takes over when it has built its engine, and what to say of it."""
    if not prefer:
        return own, None, ()
    other = stand_in(own)
    able = {t.name: t for t in (own, other) if t is not None}
    wanted = [able[name] for name in prefer if name in able]
    if not wanted:
        raise InputError(
            f"a bundle for {own.name} is run by {' or '.join(able)}, {' or '.join(prefer)} was preferred",
            remedy="prefer one of these, or name another bundle",
        )
    if other is None or len(wanted) == 1:
        return wanted[0], None, ()
    if prefer.index(other.name) < prefer.index(own.name):
        return other, None, ()
    if not is_installed(own):
        return other, None, (f"{own.name} is not installed here: {other.name} answers",)
    starts_at_once = getattr(own, "starts_at_once", None)
    if starts_at_once is None or starts_at_once(artifact, spec, options=options):
        return own, None, ()
    return other, own, (f"{own.name} builds its engine: {other.name} answers until then",)


def _settings(
    options: LoadOptions, threads: int | None, device: str | Sequence[str] | None, board: Profile | None
) -> LoadOptions:
    """What the caller asked for; where nothing was asked for, what the board's profile says."""
    threads = options.threads if threads is None else threads
    devices = options.devices if device is None else (device,) if isinstance(device, str) else tuple(device)
    if board is not None:
        threads = board.threads if threads is None else threads
        devices = devices or ((board.device,) if board.device else ())
    return replace(options, threads=threads, devices=devices, cache=options.cache or default_cache())


def names_a_file(model: str | Path) -> bool:
    """Whether this is a bundle's path and no zoo name: by its suffix, or because such a file exists."""
    try:
        return str(model).endswith(SUFFIX) or Path(model).is_file()
    except (OSError, ValueError):  # longer than a path may be, or not allowed to look
        return False


def _choose(
    name: str, target: str | None, precision: str | None, prefer: tuple[str, ...] = ()
) -> tuple[Bundle, str]:
    """The fastest fitting bundle of a zoo model, of the first preferred engine that is here, and why."""
    shipped = zoo.bundles(name)
    fitting = [b for b in shipped if target in (None, b.target) and precision in (None, b.precision)]
    if prefer:
        fitting = sorted((b for b in fitting if b.target in prefer), key=lambda b: prefer.index(b.target))
        target = " or ".join(prefer)
    if not fitting:
        have = ", ".join(f"{b.target} {b.precision}" for b in shipped) or "none"
        raise InputError(
            f"no shipped bundle of {name} for target {target or 'any'}, precision {precision or 'any'}",
            remedy=f"shipped: {have}; or make one with 'edge-sdk build {name}'",
        )
    installed = available_targets()
    usable = [b for b in fitting if b.target in installed]
    if prefer:
        usable = [b for b in usable if b.target == usable[0].target]
    if not usable:
        engines = sorted({b.target for b in fitting})
        extras = " or ".join(f"pip install 'face-edge-sdk[{find_target(e).distribution}]'" for e in engines)
        raise MissingDependency(f"no engine for {name} is installed here", remedy=extras)
    best = usable[0]
    bundle = Bundle.open(best.path)
    if bundle.sha256 != best.sha256:
        raise ChecksumMismatch(
            f"{best.path} is not the bundle that the zoo's index names", remedy="reinstall face-edge-sdk"
        )
    passed_over = ", ".join(f"{b.target}-{b.precision}" for b in fitting if b not in usable)
    pace = f"{zoo.latency_here(best):.2f} of onnxruntime fp32"
    why = f"fastest of {len(usable)} shipped bundles that can run here: {pace}"
    return bundle, why + (f"; engine not installed for {passed_over}" if passed_over else "")


def check_golden(session: Session, task: AnyTask, case: GoldenCase, min_snr_db: float) -> None:
    """Raise ChecksumMismatch unless the session answers a golden frame as it did when the bundle was built."""
    pixels, _ = task.preprocess(case.frame)
    outputs = session.infer(pixels)
    for name, expected in case.outputs.items():
        ratio = snr_db(expected, outputs[name])
        if not ratio >= min_snr_db:
            raise ChecksumMismatch(
                f"golden vectors fail here: output {name!r} reaches {ratio:.1f} dB, {min_snr_db:g} dB expected",
                remedy="this engine or machine computes something else than the bundle was gated for: "
                "try another target or engine version, and report it",
            )


def snr_db(expected: npt.NDArray[np.floating], actual: Array) -> float:
    """Signal-to-noise ratio in decibels; infinite for equal arrays, NaN if ``actual`` is not finite."""
    reference = expected.astype(np.float32)
    noise = float(np.square(reference - actual).sum(dtype=np.float64))
    signal = float(np.square(reference).sum(dtype=np.float64))
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 and math.isfinite(noise) else math.nan
