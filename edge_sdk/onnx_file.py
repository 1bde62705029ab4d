"""Whether an ONNX file is whole in itself: no byte of it lies in another file, and nothing custom runs.

A bundle's hash covers the file's bytes alone. A tensor may say that its data lies elsewhere, at any depth: in a weight,
a sparse weight, an attribute, a branch of ``If``, the body of ``Loop`` or ``Scan``, a function; an operator of a vendor
may name a file too. This reads the file itself, without the ``onnx`` package, which a device has not.
Format: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edge_sdk.errors import InputError
from edge_sdk.protobuf import LENGTH, VARINT, entries

Operators = Mapping[str, Collection[str] | None]
"""Domain of operators to the names of those that may be used; None allows the whole domain."""

_ONNXRUNTIME = (
    "Attention BiasAdd BiasGelu BiasSoftmax BiasSplitGelu DequantizeLinear DynamicQuantizeMatMul FastGelu FusedConv "
    "FusedGemm FusedMatMul Gelu GroupNorm MatMulIntegerToFloat MultiHeadAttention NhwcConv NhwcMaxPool QAttention QGemm "
    "QLinearAdd QLinearAveragePool QLinearConcat QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul "
    "QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere QuantizeLinear QuickGelu SkipLayerNormalization"
)
"""What onnxruntime's optimizer and quantizer put in the place of standard operators. Not among them: those that hold or
name compiled code, such as EPContext."""
STANDARD: Operators = {
    # An engine itself refuses what its ONNX does not have.
    "": None,
    "ai.onnx.ml": None,
    "com.microsoft": frozenset(_ONNXRUNTIME.split()),
}
"""ONNX's own operators, and those of onnxruntime's tools."""

MAX_FIELDS = 2_000_000
"""Of the messages that are looked into; a detector has 30,000. More would take seconds to read."""

_INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Kind of message to the numbers of its fields that can hold a tensor, and what they are."""
_NAME, _EXTERNAL, _LOCATION = 8, 13, 14
_OPERATOR, _DOMAIN = 4, 7
_TEXTS: Mapping[str, tuple[int, ...]] = {"tensor": (_NAME,), "node": (_OPERATOR, _DOMAIN)}
_ORT_FORMAT = b"ORTM"


def problem(data: bytes, operators: Operators | None = STANDARD) -> str | None:
    """What keeps an ONNX file from being used, in words: another file, an unknown operator, or not ONNX; else None.

    Args:
        data: the file.
        operators: that may be used; None allows all.
    """
    if data[4:8] == _ORT_FORMAT:
        return "the file is onnxruntime's own format, not ONNX"
    waiting, left = [("model", 0, len(data))], MAX_FIELDS
    graphs = 0
    try:
        while waiting:
            kind, start, end = waiting.pop()
            graphs += kind == "graph"
            inside, texts = _INSIDE[kind], _TEXTS.get(kind, ())
            found: dict[int, str] = {}
            outside = False
            for number, wire, value, after in entries(data, start, end):
                left -= 1
                if number in inside or number in texts:
                    if wire != LENGTH:
                        return f"the file is not ONNX: field {number} of a {kind} has no length"
                    if number in inside:
                        waiting.append((inside[number], value, after))
                    else:
                        found[number] = data[value:after].decode(errors="replace")
                elif kind == "tensor" and number in (_EXTERNAL, _LOCATION):
                    outside |= wire != VARINT or value != 0
            if left < 0:
                return f"the file has more than {MAX_FIELDS:,} parts"
            if outside:
                return f"weight {found.get(_NAME, '')!r} lies in another file"
            if kind == "node" and operators is not None and (refused := _refused(found, operators)):
                return refused
    except InputError:
        return "the file is not ONNX: it is cut off or damaged"
    return None if graphs else "the file is not ONNX: it has no graph"


def _refused(node: Mapping[int, str], operators: Operators) -> str | None:
    domain, name = node.get(_DOMAIN, ""), node.get(_OPERATOR, "")
    allowed = operators.get("" if domain == "ai.onnx" else domain, ())
    if allowed is None or name in allowed:
        return None
    return f"operator {domain or 'ai.onnx'}.{name} is none that this engine is given"
