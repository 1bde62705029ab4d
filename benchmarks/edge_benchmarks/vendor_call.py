"""The engines' own calls, as their vendors' manuals make them: the reference for what the SDK adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edge_sdk.errors import InputError
from edge_sdk.target import Session
from edge_sdk.tensors import Array

Call = Callable[[Array], Any]


def vendor_call(target: str, session: Session) -> Call:
    """The vendor's own call on the handle that a session holds: takes the input pixels, returns the engine's outputs.

    It is the same handle, because two with equal settings differ by more than what is looked for: their memory lies
    elsewhere, and the caches hold that of only one.

    Args:
        target: name of one of our engines.
        session: a session of that target.

    Raises:
        InputError: no call is written here for that engine.
    """
    known = {"onnxruntime": _onnxruntime, "openvino": _openvino, "tflite": _tflite}
    if target not in known:
        raise InputError(f"no raw call for target {target!r}", remedy=f"use one of {', '.join(known)}")
    return known[target](session)


def _onnxruntime(session: Any) -> Call:
    engine, entry = session.engine, session.input.name
    names = [t.name for t in session.outputs]
    return lambda pixels: engine.run(names, {entry: pixels})


def _openvino(session: Any) -> Call:
    engine = session.engine
    # Sharing spares the vendor's call the copies that ours does not make either.
    return lambda pixels: engine.infer([pixels], share_inputs=True, share_outputs=True)


def _tflite(session: Any) -> Call:
    engine = session.engine
    (entry,) = engine.get_input_details()
    exits = [d["index"] for d in engine.get_output_details()]

    def call(pixels: Array) -> Any:
        engine.set_tensor(entry["index"], pixels)
        engine.invoke()
        return [engine.get_tensor(index) for index in exits]

    return call
