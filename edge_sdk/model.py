"""A loaded model: a session of some engine with the task that surrounds it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

import numpy.typing as npt

from edge_sdk.bundle import Bundle, GateResult
from edge_sdk.engine_cache import default_cache
from edge_sdk.errors import EdgeError, InputError
from edge_sdk.handover import Successor, choose_serving
from edge_sdk.image import Color, Image
from edge_sdk.ownership import Ownership
from edge_sdk.profile import Profile, read_profile
from edge_sdk.results import Result
from edge_sdk.selection import Selected, select
from edge_sdk.signing import PublicKey
from edge_sdk.spec import ModelSpec
from edge_sdk.state import State
from edge_sdk.target import CPU, LoadOptions, Session, Target, find_target
from edge_sdk.tasks import Task
from edge_sdk.trust import Trust, admit
from edge_sdk.verify import load_proven

_LOG = logging.getLogger("edge_sdk")

R = TypeVar("R", bound=Result)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is loaded.

    Attributes:
        name: of the model.
        task: such as ``"detection"``.
        labels: what the answers are called.
        input_size: (width, height) in pixels of what the network sees; None for one that sees no picture.
        target: engine that runs it.
        precision: of its graph.
        gate: what the accuracy gate measured; its ``waiver`` says why the bundle exists although it failed.
        licence: of the weights.
        sha256: identity of the bundle.
        chosen: why this bundle was taken.
        device: that runs the engine, such as ``"CPU"``.
        notes: what the engine says of this load: devices that were not used and why, operators that were not
            accelerated.
        signed_by: names of the trusted keys that signed the bundle; empty where no policy and no caller named a key.
    """

    name: str
    task: str
    labels: tuple[str, ...]
    input_size: tuple[int, int] | None
    target: str
    precision: str
    gate: GateResult
    licence: str
    sha256: str
    chosen: str
    device: str = CPU
    notes: tuple[str, ...] = ()
    signed_by: tuple[str, ...] = ()


class Model(Generic[R]):
    """Callable on frames; a context manager.

    For a type checker, say what it answers: ``detector: Model[Detections] = edge_sdk.load("fer-yolo11n")``.

    One model serves one thread at a time, for its buffers are reused from frame to frame: a call or ``close`` that comes
    while another thread's call runs is refused (ModelBusy). It serves the process that loaded it; in one forked from it
    every call is refused (InferFailed).

    Args:
        session: of the engine; the model closes it.
        task: makes its inputs and reads its outputs.
        info: what was loaded.
        successor: of the session, which takes over between two frames once it is loaded.
    """

    def __init__(
        self, session: Session, task: Task, info: ModelInfo, successor: Successor | None = None
    ) -> None:
        self.session, self.task, self.info = session, task, info
        self._answerer = f"{info.target}-{info.precision}"
        self._successor = successor
        self._ownership = Ownership(self, "the model", closed=InputError)
        self._recurrent = bool(task.spec.state)

    @property
    def spec(self) -> ModelSpec:
        """The network's spec."""
        return self.task.spec

    @property
    def pending(self) -> str | None:
        """Engine that is being built and will take over; None if there is none."""
        return None if self._successor is None else self._successor.target

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait, at most so long, until no engine is pending; returns whether that is so.

        Raises:
            ModelBusy: another thread is using the model just when the new engine would take over.
        """
        successor = self._successor
        if successor is None or not successor.wait(timeout_s):
            return successor is None
        with self._ownership:
            if self._successor is not None:  # a call may have been faster
                self._take_over(self._successor)
        return True

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
        before, self.session = self.session, session
        self.info = replace(self.info, target=successor.target, device=session.device, notes=session.notes)
        self._answerer = f"{self.info.target}-{self.info.precision}"
        before.close()

    def new_state(self) -> State | None:
        """What the network remembers of one stream or track, zeros at first, to be given to every call for it.

        Returns:
            None for a network that remembers nothing, which is called without a state, or with this None.
        """
        return State(self.spec) if self.spec.state else None

    def __call__(
        self,
        image: Image,
        *,
        boxes: npt.ArrayLike | None = None,
        color: Color = "rgb",
        state: State | None = None,
    ) -> R:
        """Find the faces of a frame, or say what given faces show.

        Args:
            image: (H, W, 3) uint8, any size.
            boxes: for a model that looks at faces: (N, 4) x1, y1, x2, y2 in pixels of each face, such as a detector's
                ``.boxes``; None takes the picture as one crop, where the task allows that. A detector finds its own.
            color: order of the channels; ``"bgr"`` for a frame from OpenCV.
            state: of a recurrent network, from :meth:`new_state`: one per stream or track, updated by the call.

        Returns:
            ``Detections`` from a detector, ``Classifications`` from a classifier, ``Liveness`` from a liveness network.

        Raises:
            InputError: not such a frame or boxes, a state is missing, not wanted or of another network, or the model
                is closed.
            InferFailed: the engine failed, or this process was forked from the one that loaded the model.
            ModelBusy: another thread is using the model.
        """
        ownership = self._ownership
        try:
            mine = ownership.take()
        except IndexError:
            raise ownership.refusal() from None
        try:
            if self._successor is not None and self._successor.done:
                self._take_over(self._successor)
            return self._answer(image, boxes, color, state)
        finally:
            ownership.give(mine)

    def _answer(self, image: Image, boxes: npt.ArrayLike | None, color: Color, state: State | None) -> R:
        if self._recurrent or state is not None:
            self._check_state(state)
        found = self.task.run(
            self.session, image, boxes=boxes, color=color, state=state, target=self._answerer
        )
        return cast(R, found)

    def _check_state(self, state: State | None) -> None:
        """Raise InputError unless a state is given where the network remembers, and is one of this network."""
        if not self._recurrent:
            raise InputError(f"{self.info.name} remembers nothing between frames", remedy="leave state out")
        remedy = "give state=model.new_state(), one per stream"
        if state is None:
            raise InputError(f"{self.info.name} needs a state", remedy=remedy)
        if state.spec is not self.spec and state.spec != self.spec:
            raise InputError(
                f"{self.info.name} was given a state of another network, {state.spec.name}", remedy=remedy
            )

    def close(self) -> None:
        """Free the engine; a second call does nothing. What is being built goes on, into the engine cache.

        Raises:
            ModelBusy: another thread is using the model; nothing was freed.
        """
        if not self._ownership.end():
            return
        if self._successor is not None:
            self._successor.abandon()
            self._successor = None
        self.session.close()

    def __enter__(self) -> Model[R]:
        """Return the model."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the model."""
        self.close()


def load(
    model: str | Path | Bundle,
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
    trust: Trust | None = None,
    isolated: bool | float = False,
) -> Model[Any]:
    """Load a model by zoo name, from a bundle file, or from a bundle that is open.

    A zoo name takes, among the bundles of the model whose engine is installed here, the fastest that passed its gate.
    What is asked for is required: nothing is replaced silently. An engine that compiles at load keeps what it compiled
    for the next time, in ``$EDGE_SDK_ENGINE_CACHE`` or the user's cache folder; ``off`` keeps nothing.

    Args:
        model: zoo name, path of an ``.edge`` file (text with that suffix or a separator, or a Path), or what
            :meth:`edge_sdk.Bundle.open` returned: the bytes that were looked at are the bytes that are loaded.
        target: engine that must run it.
        prefer: engines that may run it, in this order, instead of one that must: ``("tensorrt", "onnxruntime")`` lets
            onnxruntime answer from a bundle for TensorRT while this device builds the plan, or where there is none.
            Every result says who answered; ``model.pending`` and ``model.wait()`` tell of the handover.
        precision: that its graph must have.
        threads: of the engine; None takes the number of cores, at most 4.
        device: where the engine must run, such as ``"GPU"``; several are tried in that order, and the results and
            ``info.notes`` say which it became and why. None takes the processor.
        profile: board, by name or TOML file: its engine, threads and device hold where nothing else is asked for.
        options: everything else that an engine may be told; ``threads`` and ``device`` beside it win.
        confidence: report faces from this score on; None takes the model's.
        verify: run the golden vectors once: the device proves itself, and is warm afterwards.
        trust: who must have signed the bundle: a public key or its file, several of which one must have, or a
            :class:`edge_sdk.Policy`. It adds to the device's own policy and never lifts it.
        isolated: load and prove the bundle in a process of its own first, so that an engine that crashes on it is an
            error here (LoadFailed, naming the signal); a number is the seconds it may take, True 600. It doubles the
            time of a load; for bundles that others made.

    Raises:
        InputError: unknown name, no bundle of that target and precision, or an option that the engine does not have.
        BundleError: the bundle is damaged, or the golden vectors fail here.
        SignatureInvalid: a policy, or ``trust``, refuses the bundle; no engine has seen it then.
        MissingDependency: the engine is not installed.
        LoadFailed: the engine refused the artifact, died of it where ``isolated``, or a required device is not there.
    """
    board = None if profile is None else read_profile(profile)
    if prefer and target is not None:
        raise InputError(
            "target says which engine must run it, prefer which ones may", remedy="give one of them"
        )
    if target is None and board is not None and not prefer:
        target = board.engine
    settings = _settings(options or LoadOptions(), threads, device, board)
    chosen = select(model, target=target, precision=precision, prefer=tuple(prefer))
    signers = admit(chosen.bundle, trust)
    manifest = chosen.bundle.manifest
    if manifest.gate.waiver is not None:
        _LOG.warning(
            "%s did not pass its accuracy gate; waived: %s (edge-sdk inspect shows what was lost)",
            chosen.path or manifest.spec.name,
            manifest.gate.waiver,
        )
    own = find_target(manifest.target)
    serving = choose_serving(own, chosen.bundle.artifact, manifest.spec, tuple(prefer), settings)
    # The preferred engine's options mean nothing to the one that stands in for it.
    mine = settings if serving.now is own else LoadOptions(settings.threads, settings.cache)

    def proven(target: Target, options: LoadOptions) -> tuple[Session, Task]:
        if isolated:
            # Few ask for it, and what starts processes is slow to import.
            from edge_sdk.isolation import TIMEOUT_S, prove_in_child

            limit = TIMEOUT_S if isolated is True else isolated
            prove_in_child(chosen.path, chosen.bundle, target.name, options, verify=verify, timeout_s=limit)
        return load_proven(chosen.bundle, target, options, verify=verify, confidence=confidence)

    session, task = proven(serving.now, mine)
    answering = manifest.target if serving.now is own else serving.now.name
    try:
        successor = None
        if (later := serving.later) is not None:
            successor = Successor(later.name, lambda: proven(later, settings)[0])
        return Model(session, task, _info(chosen, answering, serving.notes, session, signers), successor)
    except BaseException:
        session.close()
        raise


def _info(
    chosen: Selected,
    answering: str,
    notes: tuple[str, ...],
    session: Session,
    signers: tuple[PublicKey, ...],
) -> ModelInfo:
    manifest, pixels = chosen.bundle.manifest, chosen.bundle.manifest.spec.pixels
    return ModelInfo(
        name=manifest.spec.name,
        task=manifest.spec.task,
        labels=manifest.spec.labels,
        input_size=None if pixels is None else (pixels.shape[-2], pixels.shape[-3]),
        target=answering,
        precision=manifest.recipe.precision,
        gate=manifest.gate,
        licence=manifest.spec.licence,
        sha256=chosen.bundle.sha256,
        chosen=chosen.reason,
        device=session.device,
        notes=(*session.notes, *notes),
        signed_by=tuple(key.name for key in signers),
    )


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
