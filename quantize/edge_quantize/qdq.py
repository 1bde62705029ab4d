"""Graphs for TensorRT: explicit symmetric QDQ in int8, typed float16, and the linter that holds their rules.

What TensorRT asks of an explicitly quantized graph (its developer guide, "Working with Quantized Types"): signed 8 bit,
zero-point 0, one scale for an activation and one for each output channel of a weight; a pair of QuantizeLinear and
DequantizeLinear before every weighted operator and on the residual inputs of additions; none between a convolution and
its activation, which fuse. ``quantize_static`` of onnxruntime places pairs for onnxruntime's kernels (after every
operator, biases too), so pairs are placed here; onnxruntime only runs the network over the calibration set.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_quantize.histogram import BINS, count_all, least_squares, spans
from edge_sdk.errors import CompileFailed
from edge_sdk.tensors import Array

Method = Literal["minmax", "mse", "percentile", "entropy"]
Floats = npt.NDArray[np.floating]

QMAX = 127
"""Symmetric: -128 is not used."""
FLOAT16_MAX = 65504.0
PERCENTILE = 99.99

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
ACTIVATIONS = (
    "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu", "Sigmoid",
    "Softplus", "Tanh",
)  # fmt: skip
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that a graph breaks.

    Attributes:
        rule: name, as in :data:`RULES`.
        node: name of the node that breaks it.
        problem: what is wrong there.
    """

    rule: str
    node: str
    problem: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.rule} at {self.node}: {self.problem}"


RULES: Mapping[str, str] = {
    "pixels-cast": "8-bit pixels go into a Cast to float and nothing else: TensorRT computes nothing in uint8",
    "qdq-int8": "quantized values are signed 8 bit",
    "qdq-symmetric": "zero-points are 0",
    "qdq-scale": "scales are constants, finite and above 0",
    "qdq-pair": "what is quantized is dequantized with the same scale, and nothing else reads it",
    "qdq-activation-scalar": "an activation has one scale",
    "qdq-weight-channel": "a weight has one scale for each of its output channels",
    "qdq-half": "a weighted operator has all its inputs quantized or none",
    "qdq-fusion": "nothing stands between a weighted operator and its activation",
    "qdq-residual": "an addition reads the quantized copy of a tensor that has one",
    "qdq-output": "an output of the network is not quantized",
    "qdq-bias": "a bias stays in float",
}
"""Rule name to what it says."""


def prepare(model: Any) -> Any:
    """A copy with 8-bit pixels cast before anything else touches them, every node named, and shapes inferred.

    Args:
        model: an ``onnx.ModelProto``.
    """
    import onnx

    model = onnx.shape_inference.infer_shapes(_copy(model))
    graph = _Graph(model)
    for value in model.graph.input:
        if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            _cast_first(model, graph, value.name)
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        node.name = node.name or node.output[0]  # as recipes name it
        if node.name in seen:
            node.name = f"{node.name}_{index}"
        seen.add(node.name)
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model)


def _cast_first(model: Any, graph: _Graph, pixels: str) -> None:
    """Swap a Cast with the operators before it that only move values."""
    cast = None
    for node in graph.readers[pixels]:
        path = [node]
        while path[-1].op_type in ("Transpose", "Reshape") and len(graph.readers[path[-1].output[0]]) == 1:
            path.append(graph.readers[path[-1].output[0]][0])
        if path[-1].op_type != "Cast" or len(path) == 1:
            continue
        old, first, last = path[-1], path[0], path[-2]
        cast = _node("Cast", [pixels], [f"{pixels}_cast"], f"{pixels}_cast", to=_attribute(old, "to"))
        first.input[0] = cast.output[0]
        last.output[0] = old.output[0]
        model.graph.node.remove(old)
        model.graph.node.insert(0, cast)
        return


def to_float16(model: Any) -> Any:
    """A copy that computes in float16 and gives float32: every version of TensorRT runs it as it is typed.

    Args:
        model: a prepared float ``onnx.ModelProto``.

    Raises:
        CompileFailed: a weight is not finite in float16.
    """
    import onnx
    from onnx import TensorProto, numpy_helper

    model = _copy(model)
    graph = _Graph(model)
    # Sizes, and the scale factors of Resize, are float32 by the standard whatever the data is.
    fixed = {name for n in model.graph.node if n.op_type == "Resize" for name in n.input[2:3] if name}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in fixed:
            tensor.CopyFrom(
                numpy_helper.from_array(_half(numpy_helper.to_array(tensor), tensor.name), tensor.name)
            )
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
            elif attribute.t.data_type == TensorProto.FLOAT and not set(node.output) & fixed:
                value = _half(numpy_helper.to_array(attribute.t), node.name)
                attribute.t.CopyFrom(numpy_helper.from_array(value))
    for value in model.graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            inner = f"{value.name}_float16"
            for node in model.graph.node:
                for names in (node.input, node.output):
                    for index, name in enumerate(names):
                        if name == value.name:
                            names[index] = inner
            model.graph.node.append(
                _node("Cast", [inner], [value.name], f"{value.name}_cast", to=TensorProto.FLOAT)
            )
    for value in model.graph.input:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            inner = f"{value.name}_float16"
            for node in graph.readers[value.name]:
                _rename(node, value.name, inner)
            cast = _node("Cast", [value.name], [inner], f"{value.name}_cast", to=TensorProto.FLOAT16)
            model.graph.node.insert(0, cast)
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def check_float16_range(model: Any, frames: Sequence[Array], *, headroom: float = 4.0) -> None:
    """Raise CompileFailed if an activation of the float network comes near float16's largest number.

    An engine that computes in float16 turns what is larger into infinity; one that computes in float32 and rounds, as
    onnxruntime does on a processor, would not show it in the gate.

    Args:
        model: a prepared float ``onnx.ModelProto``.
        frames: input tensors.
        headroom: factor that must remain between the largest value seen and 65504.
    """
    graph = _Graph(model)
    names = [name for n in model.graph.node for name in n.output if name and name not in graph.constants]
    for name, largest in amax(model, names, frames, "minmax").items():
        if not largest * headroom <= FLOAT16_MAX:
            raise CompileFailed(
                f"tensor {name!r} reaches {largest:g}: float16 ends at {FLOAT16_MAX:g}, "
                f"and unseen pictures need {headroom:g} times the room",
                remedy="use recipe fp32, or train the network with a normalization before that layer",
            )


def ranges(model: Any, frames: Sequence[Array], method: Method = "minmax") -> dict[str, float]:
    """The largest magnitude, by :func:`amax`, of every activation that :func:`quantize` may want.

    Args:
        model: a prepared float ``onnx.ModelProto``.
        frames: calibration tensors, in order.
        method: how it is found.
    """
    return amax(model, list(_activations(_Graph(model), ())), frames, method)


def quantize(model: Any, ranges: Mapping[str, float], *, keep_float: Collection[str] = ()) -> Any:
    """An int8 copy by the rules above.

    Args:
        model: a prepared float ``onnx.ModelProto``, one input.
        ranges: from :func:`ranges` of the same model.
        keep_float: names of nodes whose inputs stay in float.

    Raises:
        CompileFailed: the calibration shows an activation that is never other than 0, or not finite.
    """
    import onnx

    model = _copy(model)
    graph = _Graph(model)
    wanted = _activations(graph, keep_float)
    for tensor, readers in wanted.items():
        largest = ranges[tensor]
        if not (math.isfinite(largest) and largest > 0):
            raise CompileFailed(
                f"tensor {tensor!r} is {'always 0' if largest == 0 else largest} over the calibration set",
                remedy="calibrate on real pictures, or mend the network",
            )
        _insert_pair(model, graph, tensor, np.float32(largest / QMAX), None, readers)
    for node in graph.nodes:
        if node.op_type in WEIGHTED and node.name not in keep_float and _is_dequantized(node, wanted):
            _quantize_weight(model, graph, node)
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def _activations(graph: _Graph, keep_float: Collection[str]) -> dict[str, list[Any]]:
    """Tensor to the nodes that shall read its quantized copy."""
    wanted: dict[str, list[Any]] = {}
    for node in graph.nodes:
        if node.name in keep_float:
            continue
        if node.op_type in WEIGHTED:
            names = [name for name in node.input[:2] if name not in graph.constants]
            # A Gemm or MatMul whose constant is on the left has no output channels to scale.
            if node.op_type in ("Gemm", "MatMul") and node.input[0] in graph.constants:
                continue
        elif node.op_type == "Add" and not any(name in graph.constants for name in node.input):
            # A convolution whose output nobody else reads adds in its kernel: the other summand is read in 8 bits.
            fusing = [
                n for n in node.input if graph.kind_of_maker(n) in WEIGHTED and len(graph.readers[n]) == 1
            ]
            names = [n for n in node.input if n not in fusing] or [node.input[1]]
        else:
            continue
        for name in names:
            readers = wanted.setdefault(name, [])
            if node not in readers:
                readers.append(node)
    return wanted


def _is_dequantized(node: Any, wanted: Mapping[str, list[Any]]) -> bool:
    return any(node in readers for readers in wanted.values())


def _insert_pair(
    model: Any,
    graph: _Graph,
    tensor: str,
    scale: Any,
    axis: int | None,
    readers: Iterable[Any],
) -> None:
    """Put Q and DQ behind a tensor, for these readers only."""
    from onnx import numpy_helper

    scale = np.asarray(scale, np.float32)
    zero = np.zeros(scale.shape, np.int8)
    names = {part: f"{tensor}_{part}" for part in ("scale", "zero_point", "quantized", "dequantized")}
    model.graph.initializer.append(numpy_helper.from_array(scale, names["scale"]))
    model.graph.initializer.append(numpy_helper.from_array(zero, names["zero_point"]))
    along = {} if axis is None else {"axis": axis}
    both = [names["scale"], names["zero_point"]]
    for reader in readers:
        _rename(reader, tensor, names["dequantized"])
    maker = graph.maker.get(tensor)
    place = (
        0
        if maker is None
        else next(i for i, n in enumerate(model.graph.node) if n is maker or n == maker) + 1
    )
    pair = (
        _node(_Q, [tensor, *both], [names["quantized"]], f"{tensor}_{_Q}", **along),
        _node(_DQ, [names["quantized"], *both], [names["dequantized"]], f"{tensor}_{_DQ}", **along),
    )
    for node in reversed(pair):
        model.graph.node.insert(place, node)


def _quantize_weight(model: Any, graph: _Graph, node: Any) -> None:
    """Scale a weight by its output channels.

    The weight stays in float before a pair of its own: TensorRT folds it, and not every version reads an int8 constant.
    """
    name = node.input[1]
    if name not in graph.constants or f"{name}_scale" in {t.name for t in model.graph.initializer}:
        if name in graph.constants:
            _rename(node, name, f"{name}_dequantized")
        return
    weight = graph.constants[name]
    axis = weight_axis(node, weight.ndim)
    largest = np.abs(weight.astype(np.float32)).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    # A channel of zeros may have any scale above 0.
    scale = np.where(largest > 0, largest, 1.0) / QMAX
    _insert_pair(model, graph, name, scale, axis, [node])


def weight_axis(node: Any, dimensions: int) -> int:
    """Axis of a weighted operator's second input that holds its output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm" and _attribute(node, "transB"):
        return 0
    return dimensions - 1


def amax(model: Any, tensors: Sequence[str], frames: Sequence[Array], method: Method) -> dict[str, float]:
    """The largest magnitude that a tensor's 8 bits shall reach, for each tensor.

    ``minmax`` takes the largest seen; the others look at a histogram of magnitudes and clip rare ones: ``percentile``
    the last 0.01 %, ``mse`` where the mean squared error is least, ``entropy`` where the quantized distribution
    diverges least from the true one (Migacz, "8-bit Inference with TensorRT", GTC 2017).

    Args:
        model: ``onnx.ModelProto`` with one input.
        tensors: names.
        frames: input tensors; the pictures are run once, or twice where a histogram is needed, and nothing is kept.
        method: one of the four.
    """
    largest = dict.fromkeys(tensors, 0.0)
    for values in inner(model, tensors, frames):
        for name, value in values.items():
            # A NaN must not be lost in a comparison.
            seen = float(np.abs(value).max()) if value.size else 0.0
            largest[name] = seen if seen > largest[name] or math.isnan(seen) else largest[name]
    if method == "minmax":
        return largest
    whole = spans({name: (0.0, top) for name, top in largest.items()})
    magnitudes = (
        {name: np.abs(v) for name, v in values.items()} for values in inner(model, list(whole), frames)
    )
    counts = count_all(magnitudes, whole)
    clip: Callable[[npt.NDArray[np.int64]], float] = {
        "percentile": _percentile,
        "mse": _least_squares,
        "entropy": _least_divergence,
    }[method]
    return {name: top * clip(counts[name]) if name in counts else top for name, top in largest.items()}


def _percentile(counts: npt.NDArray[np.int64]) -> float:
    """Share of the range below which that many values lie."""
    below = np.cumsum(counts) / counts.sum()
    return float(np.searchsorted(below, PERCENTILE / 100) + 1) / BINS


def _least_squares(counts: npt.NDArray[np.int64]) -> float:
    """Share of the range at which rounding inside and clipping outside cost least."""
    return least_squares(counts, 0.0, 1.0, levels=QMAX, shares=96)[1]


def _least_divergence(counts: npt.NDArray[np.int64]) -> float:
    """Share of the range at which 128 levels keep the distribution best, by Kullback and Leibler's measure."""
    counts = counts.astype(np.float64)
    counts[0] = counts[1]  # exact zeros, of a ReLU, carry no information on the range
    best, share = math.inf, 1.0
    for end in range(QMAX + 1, BINS + 1, 16):
        clipped = counts[:end].copy()
        clipped[-1] += counts[end:].sum()
        level = np.arange(end) * (QMAX + 1) // end
        alive = clipped > 0
        mass = np.bincount(level, counts[:end], QMAX + 1)
        occupied = np.bincount(level, alive, QMAX + 1)
        coarse = np.where(alive, (mass / np.maximum(occupied, 1))[level], 0.0)
        if not coarse.sum():
            continue
        p, q = clipped / clipped.sum(), coarse / coarse.sum()
        both = alive & (q > 0)
        # What the clipped histogram has where the coarse one has nothing counts as lost.
        divergence = float((p[both] * np.log(p[both] / q[both])).sum() + p[alive & (q == 0)].sum() * 20)
        if divergence < best:
            best, share = divergence, end / BINS
    return share


def inner(model: Any, tensors: Sequence[str], frames: Sequence[Array]) -> Iterable[dict[str, Floats]]:
    """The values of tensors of a float ``onnx.ModelProto`` with one input, frame after frame."""
    import onnx
    import onnxruntime

    graph_input = model.graph.input[0].name
    probed = _copy(model)
    outputs = {value.name for value in probed.graph.output}
    probed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in tensors
        if name not in outputs and name != graph_input
    )
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        probed.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    asked = [name for name in tensors if name != graph_input]
    for frame in frames:
        yield dict(zip(asked, session.run(asked, {graph_input: frame}), strict=True))


def lint(model: Any, *, keep_float: Collection[str] = ()) -> list[Finding]:
    """Where a graph breaks TensorRT's rules for pixels and explicit quantization; empty if nowhere.

    Args:
        model: an ``onnx.ModelProto``, quantized or not.
        keep_float: nodes that a recipe leaves in float on purpose.
    """
    import onnx

    graph = _Graph(model)
    found: list[Finding] = []

    def tell(rule: str, node: Any, problem: str) -> None:
        found.append(Finding(rule, node.name or node.op_type, problem))

    for value in model.graph.input:
        if value.type.tensor_type.elem_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8):
            for node in graph.readers[value.name]:
                if node.op_type != "Cast":
                    tell("pixels-cast", node, f"{node.op_type} reads the 8-bit input {value.name!r}")
    outputs = {value.name for value in model.graph.output}
    for node in graph.nodes:
        if node.op_type in (_Q, _DQ):
            for rule, problem in _pair_problems(node, graph, outputs):
                tell(rule, node, problem)
        elif node.op_type in WEIGHTED and node.name not in keep_float:
            for rule, problem in _weighted_problems(node, graph):
                tell(rule, node, problem)
        elif node.op_type == "Add" and node.name not in keep_float:
            for name in node.input:
                if any(reader.op_type == _Q for reader in graph.readers[name]):
                    tell("qdq-residual", node, f"reads {name!r} in float beside its quantized copy")
    return found


def _pair_problems(node: Any, graph: _Graph, outputs: Collection[str]) -> Iterable[tuple[str, str]]:
    """Rules of one QuantizeLinear or DequantizeLinear."""
    scale = graph.constants.get(node.input[1])
    if scale is None:
        yield "qdq-scale", f"the scale {node.input[1]!r} is computed by the network"
        return
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        yield "qdq-scale", f"the scale reaches from {scale.min():g} to {scale.max():g}"
    zero = graph.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if zero is None or zero.dtype != np.int8:
        yield "qdq-int8", f"the zero-point says {'uint8' if zero is None else zero.dtype}"
    if zero is not None and zero.any():
        yield "qdq-symmetric", f"the zero-point reaches {np.abs(zero.astype(int)).max()}"
    constant = graph.is_constant(node.input[0])
    if not constant and scale.size != 1:
        yield "qdq-activation-scalar", f"{scale.size} scales for an activation"
    if node.op_type == _DQ:
        if node.output[0] in outputs:
            yield "qdq-output", f"the output {node.output[0]!r} is quantized"
        for reader in graph.readers[node.output[0]]:
            if reader.op_type in WEIGHTED and node.output[0] in reader.input[2:]:
                yield "qdq-bias", f"{reader.name} reads its bias from here"
        return
    readers = graph.readers[node.output[0]]
    if node.output[0] in outputs or not readers:
        yield "qdq-pair", "nothing dequantizes it"
    for reader in readers:
        if reader.op_type != _DQ:
            yield "qdq-pair", f"{reader.op_type} {reader.name} reads 8-bit values"
            continue
        theirs = graph.constants.get(reader.input[1])
        if theirs is None or not np.array_equal(theirs, scale):
            yield "qdq-pair", f"{reader.name} dequantizes with another scale"
            continue
        if graph.kind_of_maker(node.input[0]) in WEIGHTED:
            for after in graph.readers[reader.output[0]]:
                if after.op_type in ACTIVATIONS or graph.is_gate(after, reader.output[0]):
                    maker = graph.maker[node.input[0]].name
                    yield "qdq-fusion", f"stands between {maker} and its activation {after.name}"


def _weighted_problems(node: Any, graph: _Graph) -> Iterable[tuple[str, str]]:
    """Rules of one weighted operator."""
    quantized = [graph.kind_of_maker(name) == _DQ for name in node.input[:2]]
    if any(quantized) and not all(quantized):
        yield (
            "qdq-half",
            f"reads {node.input[quantized.index(False)]!r} in float and the other input in 8 bits",
        )
    if not quantized[1]:
        return
    weight = graph.maker[node.input[1]]
    scale, value = graph.constants.get(weight.input[1]), graph.constant(weight.input[0])
    if scale is None or value is None:
        return
    axis = weight_axis(node, value.ndim)
    stated = _attribute(weight, "axis")
    stated = 1 if stated is None else int(stated)
    if scale.size != value.shape[axis] or (scale.size > 1 and stated % value.ndim != axis):
        yield (
            "qdq-weight-channel",
            f"{scale.size} scales along axis {stated} for a weight {value.shape} with its output channels on {axis}",
        )


class _Graph:
    """Who makes and who reads a tensor."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self.nodes = list(model.graph.node)
        self.constants: dict[str, Any] = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.maker: dict[str, Any] = {}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in self.nodes:
            for name in node.output:
                self.maker[name] = node
            for name in node.input:
                self.readers[name].append(node)
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)

    def kind_of_maker(self, tensor: str) -> str:
        """Operator that makes a tensor; empty for inputs and constants."""
        maker = self.maker.get(tensor)
        return "" if maker is None else str(maker.op_type)

    def constant(self, tensor: str) -> Any:
        """The value of a constant, also behind a QuantizeLinear; None if it is none."""
        maker = self.maker.get(tensor)
        if maker is not None and maker.op_type == _Q:
            tensor = maker.input[0]
        return self.constants.get(tensor)

    def is_constant(self, tensor: str) -> bool:
        """Whether a tensor does not depend on the input, itself or behind a QuantizeLinear."""
        return self.constant(tensor) is not None

    def is_gate(self, node: Any, tensor: str) -> bool:
        """Whether a Mul multiplies a tensor by an activation of itself, as SiLU does."""
        if node.op_type != "Mul":
            return False
        others = [self.maker.get(name) for name in node.input if name != tensor]
        return any(o is not None and o.op_type in ACTIVATIONS and tensor in o.input for o in others)


def _half(value: Any, name: str) -> Any:
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    if not np.isfinite(half).all():
        raise CompileFailed(
            f"constant {name!r} reaches {np.abs(value).max():g}: float16 ends at {FLOAT16_MAX:g}",
            remedy="use recipe fp32",
        )
    return half


def _copy(model: Any) -> Any:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _node(kind: str, inputs: list[str], outputs: list[str], name: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, outputs, name=name, **attributes)


def _rename(node: Any, old: str, new: str) -> None:
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new


def _attribute(node: Any, name: str) -> Any:
    import onnx

    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return None
