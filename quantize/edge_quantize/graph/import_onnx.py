"""A detector's or classifier's graph, as other tools export it, cut to the form that bundles are built from.

Exporters end a YOLO in one tensor (1, 4 + classes, cells): boxes in pixels beside scores in 0..1. One int8 scale over
both rounds every score to zero. The cut goes through the last learned convolutions instead, whose maps (side logits and
class logits of each stride) become outputs of their own; DFL, boxes and sigmoid are left to the decoder on the host.
What was cut is decoded and compared with what the graph itself answers: a head that does something else is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from edge_quantize.graph.check_graph import read_model
from edge_quantize.graph.index import GraphIndex, copy_model
from edge_sdk.errors import InputError
from edge_sdk.per_face import LOGITS
from edge_sdk.spec import ModelSpec, only_picture
from edge_sdk.tasks import task_of
from edge_sdk.tasks.detection import DetectionTask
from edge_sdk.tensors import Tensors, TensorSpec

Floats = npt.NDArray[np.float32]

_EXPORT = "export it with fixed shapes, float32, and the three strides' heads as YOLO11 and YOLO12 have them"
_BOX_TOLERANCE, _SCORE_TOLERANCE = 0.05, 1e-3
"""Pixels, and score: two orders of the same float operations differ by a tenth of it."""


@dataclass(frozen=True, slots=True)
class PixelForm:
    """What an exported graph expects in the place of uint8 RGB pixels; ignored if it takes these already.

    Attributes:
        order: of the colour channels.
        mean: subtracted from a pixel of 0..255, one number per channel in ``order``.
        std: divided by, one number per channel in ``order``.
    """

    order: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (255.0, 255.0, 255.0)


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """What a graph that another tool exported should become.

    Attributes:
        spec: what the bundle will say.
        labels: in the order of the graph's own outputs; the spec's, or the same in another order.
        pixels: what the graph expects.
    """

    spec: ModelSpec
    labels: tuple[str, ...]
    pixels: PixelForm = field(default_factory=PixelForm)


def read_graph(path: Path) -> Any:
    """A whole ONNX model, checked.

    Raises:
        InputError: not there, not ONNX, or not whole in itself.
    """
    import onnx

    if not path.is_file():
        raise InputError(f"no ONNX file {path}", remedy="check the path")
    model = read_model(path)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and onnx's own errors share no base class
        raise InputError(
            f"{path} is not a usable ONNX file: {str(error).strip().splitlines()[0]}",
            remedy="export it again",
        ) from error
    return model


def fits(model: Any, own: ExportedModel) -> bool:
    """Whether the graph has the spec's inputs and outputs already, each by its name."""
    return own.labels == own.spec.labels and all(
        _found(values).get(tensor.name) == (tensor.shape, tensor.dtype)
        for values, tensors in (
            (model.graph.input, own.spec.inputs),
            (model.graph.output, own.spec.outputs),
        )
        for tensor in tensors
    )


def adapt(model: Any, own: ExportedModel, path: Path) -> Any:
    """The graph with the spec's tensors: uint8 NHWC pixels in, raw logits out.

    Args:
        model: as ``read_graph`` gave it.
        own: what it should become.
        path: where it came from, for messages.

    Raises:
        InputError: the graph is not what the spec says; names the tensor or node that was looked at, and why.
    """
    import onnx
    import onnxslim

    spec = own.spec
    end = _ENDS.get(spec.head.kind)
    if end is None:
        wanted = ", ".join(f"{t.name} {t.dtype} {t.shape}" for t in (*spec.inputs, *spec.outputs))
        raise InputError(
            f"{path} has not the spec's tensors, and a {spec.head.kind} graph is not cut to them",
            remedy=f"export it with {wanted}",
        )
    entry = _entry(model, spec, path)
    try:
        # Constants folded, batch norms in their convolutions, dead ends gone: one form for every exporter.
        slim = onnxslim.slim(model)
        slim = onnx.shape_inference.infer_shapes(slim, data_prop=True)
    except Exception as error:  # the tool's errors share no base class
        raise InputError(f"{path}: onnxslim cannot simplify it: {error}", remedy="export it again") from error
    # Our names must be free.
    names = {t.name for t in (*spec.inputs, *spec.outputs)}
    graph = _renamed(slim, {name: f"{name}.exported" for name in names})
    entry = f"{entry}.exported" if entry in names else entry
    cut = _cut(graph, entry, end, own, path)
    onnx.checker.check_model(cut, full_check=True)
    if end.check is not None:
        end.check(graph, entry, cut, own, path)
    return cut


def _values(values: Iterable[Any]) -> list[tuple[str, tuple[int, ...], str]]:
    """Name, shape (-1 where it is not fixed) and type of each."""
    import onnx

    found = []
    for value in values:
        kind = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
        found.append((value.name, shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name))
    return found


def _found(values: Iterable[Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (shape, dtype) for name, shape, dtype in _values(values)}


def _entry(model: Any, spec: ModelSpec, path: Path) -> str:
    """Name of the graph's only input."""
    constants = {t.name for t in model.graph.initializer}
    inputs = [v for v in _values(model.graph.input) if v[0] not in constants]
    if len(inputs) != 1:
        raise InputError(
            f"{path} has {len(inputs)} inputs ({', '.join(v[0] for v in inputs)}), expected one: the picture",
            remedy="export it with the picture as its only input",
        )
    name, shape, dtype = inputs[0]
    _, height, width, _ = only_picture(spec).shape
    if -1 in shape:
        raise InputError(
            f"{path}: input {name!r} has no fixed shape {_shown(shape)}, the spec wants {height}x{width}",
            remedy="export it with fixed shapes, or fix them with "
            "'python -m onnxruntime.tools.make_dynamic_shape_fixed'",
        )
    if shape not in ((1, 3, height, width), (1, height, width, 3)) or dtype not in ("float32", "uint8"):
        raise InputError(
            f"{path}: input {name!r} is {dtype} {_shown(shape)}, the spec's size wants "
            f"float32 or uint8 (1, 3, {height}, {width}) or (1, {height}, {width}, 3)",
            remedy="correct size in the spec, or export the graph with this size and in float32",
        )
    return str(name)


def _shown(shape: Sequence[int]) -> str:
    return "(" + ", ".join("?" if n < 0 else str(n) for n in shape) + ")"


def _renamed(model: Any, names: dict[str, str]) -> Any:
    """A copy whose tensors have other names."""
    copy = copy_model(model)
    graph = copy.graph
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for listed in (node.input, node.output):
            for index, name in enumerate(listed):
                listed[index] = names.get(name, name)
    return copy


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    graph = model.graph
    return {
        n: shape
        for n, shape, _ in _values((*graph.input, *graph.value_info, *graph.output))
        if -1 not in shape
    }


def _map_sources(model: Any, spec: ModelSpec, path: Path) -> dict[str, str]:
    """Spec's output names to the tensors of the last learned convolutions, NCHW."""
    shapes, index = _shapes(model), GraphIndex(model)
    found = {
        name: shapes[name] for name in _last_convolutions(model, index) if len(shapes.get(name, ())) == 4
    }
    if not found:
        ends = ", ".join(f"{v[0]!r} {_shown(v[1])}" for v in _values(model.graph.output))
        raise InputError(
            f"{path}: no convolution with a known shape lies behind the outputs ({ends})", remedy=_EXPORT
        )
    sources = {}
    for tensor in spec.outputs:
        _, height, width, channels = tensor.shape
        fitting = [name for name, shape in found.items() if shape == (1, channels, height, width)]
        if len(fitting) != 1:
            kind = "box sides (4 x bins)" if tensor.name.startswith("box") else "labels"
            seen = ", ".join(f"{_maker(index, n)} {_shown(s)}" for n, s in found.items())
            raise InputError(
                f"{path}: output {tensor.name!r} of the spec needs one convolution that ends in "
                f"(1, {channels}, {height}, {width}), {channels} {kind}, but {len(fitting)} do; "
                f"the graph's last convolutions are {seen}",
                remedy="correct labels, bins, strides or size in the spec; " + _EXPORT,
            )
        sources[tensor.name] = fitting[0]
    return sources


def _maker(index: GraphIndex, tensor: str) -> str:
    """Name of the node that makes a tensor."""
    node = index.maker[tensor]
    return str(node.name or node.op_type)


def _last_convolutions(model: Any, index: GraphIndex) -> list[str]:
    """Outputs of the learned convolutions that are met first on the way back from the outputs."""
    stack, seen, found = [v.name for v in model.graph.output], set[str](), []
    while stack:
        name = stack.pop()
        node = index.maker.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        if node.op_type == "Conv":
            kernel = index.constants.get(node.input[1])
            # DFL's expectation is a convolution with the constants 0, 1, 2 ... as its only kernel.
            values = None if kernel is None else kernel.reshape(-1)
            if values is None or not np.array_equal(values, np.arange(len(values), dtype=values.dtype)):
                found.append(name)
                continue
        stack.extend(node.input)
    return found


def _logits_source(model: Any, spec: ModelSpec, path: Path) -> dict[str, str]:
    """``logits`` to the tensor (1, classes), or (1, classes, 1, 1), before a softmax at the end, if there is one."""
    outputs, classes = _values(model.graph.output), len(spec.labels)
    fitting = [v for v in outputs if v[1] in ((1, classes), (1, classes, 1, 1)) and v[2] == "float32"]
    if len(fitting) != 1:
        seen = ", ".join(f"{name!r} {dtype} {_shown(shape)}" for name, shape, dtype in outputs)
        raise InputError(
            f"{path}: the spec has {classes} labels and wants one output float32 (1, {classes}), "
            f"the graph has {seen}",
            remedy="correct labels in the spec, or export the classifier's logits as the only output",
        )
    name = fitting[0][0]
    index = GraphIndex(model)
    if index.kind_of_maker(name) == "Softmax":
        name = str(index.maker[name].input[0])
    return {LOGITS: name}


_Chain = list[tuple[str, list[str], dict[str, Any]]]
"""Operators one after the other: kind, further inputs, attributes."""


def _cut(model: Any, entry: str, end: _End, own: ExportedModel, path: Path) -> Any:
    """The part of the graph between the picture and what the head needs, with our front and our ends."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    spec, shapes = own.spec, _shapes(model)
    sources = end.find(model, spec, path)
    part = onnx.utils.Extractor(model).extract_model([entry], sorted(set(sources.values())))
    steps, constants = _front(own, *_found(model.graph.input)[entry])
    nodes = [*_nodes(steps, only_picture(spec).name, entry, "front"), *part.graph.node]
    reordered = own.labels != spec.labels
    if reordered:
        constants.append(numpy_helper.from_array(np.array(_order(own), np.int64), "label_order"))
    for tensor in spec.outputs:
        source = sources[tensor.name]
        steps = list(end.steps.get(len(shapes[source]), ()))
        if reordered and tensor.name.startswith(end.labelled):
            steps.append(("Gather", ["label_order"], {"axis": len(tensor.shape) - 1}))
        nodes += _nodes(steps, source, tensor.name, f"end/{tensor.name}")
    whole = helper.make_graph(
        nodes,
        spec.name,
        [_value(t, TensorProto.UINT8) for t in spec.inputs],
        [_value(t, TensorProto.FLOAT) for t in spec.outputs],
        [*part.graph.initializer, *constants],
    )
    made = helper.make_model(
        whole, opset_imports=part.opset_import, ir_version=model.ir_version, producer_name="face-edge-sdk"
    )
    return onnx.shape_inference.infer_shapes(made)


def _order(own: ExportedModel) -> list[int]:
    """Where each of the spec's labels stands among the graph's own."""
    return [own.labels.index(label) for label in own.spec.labels]


def _value(tensor: TensorSpec, kind: int) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(tensor.name, kind, tensor.shape)


def _nodes(steps: _Chain, source: str, target: str, place: str) -> list[Any]:
    """The nodes of a chain from one tensor to another."""
    from onnx import helper

    steps, nodes = steps or [("Identity", [], {})], []
    for index, (kind, more, attributes) in enumerate(steps):
        made = target if index == len(steps) - 1 else f"{place}.{index}"
        nodes.append(helper.make_node(kind, [source, *more], [made], name=f"/{place}/{kind}", **attributes))
        source = made
    return nodes


def _front(own: ExportedModel, shape: tuple[int, ...], dtype: str) -> tuple[_Chain, list[Any]]:
    """Operators, and their constants, from uint8 NHWC pixels to what the graph expects of this shape and type."""
    from onnx import TensorProto, numpy_helper

    pixels, steps, constants = own.pixels, _Chain(), list[Any]()

    def constant(name: str, value: npt.NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    planar = shape[1] == 3 and shape[3] != 3
    if pixels.order == "bgr":
        reverse = constant("front.reverse", np.array([2, 1, 0], np.int64))
        steps.append(("Gather", [reverse], {"axis": 3}))
    if planar:
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    if dtype == "float32":
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
        scale = np.array([1 / s for s in pixels.std], np.float32)
        shift = np.array([-m / s for m, s in zip(pixels.mean, pixels.std, strict=True)], np.float32)
        place = (1, 3, 1, 1) if planar else (1, 1, 1, 3)
        # One number where one will do: a constant per channel costs every engine a broadcast.
        alike = len(set(scale)) == 1
        steps.append(("Mul", [constant("front.scale", scale[0] if alike else scale.reshape(place))], {}))
        if shift.any():
            steps.append(("Add", [constant("front.shift", shift.reshape(place))], {}))
    return steps, constants


def _check_maps(model: Any, entry: str, cut: Any, own: ExportedModel, path: Path) -> None:
    """Decode the cut graph's maps and compare them with what the graph itself answers to the same picture."""
    whole = [v for v in _values(model.graph.output) if len(v[1]) == 3]
    if len(model.graph.output) != 1 or not whole:
        return  # the maps themselves were the outputs: nothing was decoded
    name, shape, _ = whole[0]
    pixels, names = only_picture(own.spec), [t.name for t in own.spec.outputs]
    picture = np.random.default_rng(0).integers(0, 256, pixels.shape).astype(np.uint8)
    given = _as_exported(picture, own, *_found(model.graph.input)[entry])
    answer = _run(model, {entry: given}, [name])[name][0]
    rows = answer if shape[2] == 4 + len(own.labels) else answer.T
    boxes, logits = cast(DetectionTask, task_of(own.spec)).decode_all(
        _run(cut, {pixels.name: picture}, names)
    )
    want = (len(boxes), 4 + len(own.labels))
    if rows.shape != want:
        raise InputError(
            f"{path}: output {name!r} is {_shown(shape)}, {want[0]} cells of 4 + {want[1] - 4} were expected "
            "from the spec's strides and labels",
            remedy="export the detector without suppression (NMS) and with one output",
        )
    middle, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    forms = (np.concatenate((middle, size), 1), boxes)
    box_error = min(float(np.abs(rows[:, :4] - form).max()) for form in forms)
    said = rows[:, 4:][:, _order(own)]
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    score_error = min(float(np.abs(said - form).max()) for form in (scores, logits))
    if not (box_error <= _BOX_TOLERANCE and score_error <= _SCORE_TOLERANCE):
        index = GraphIndex(model)
        raise InputError(
            f"{path}: the head between {', '.join(sorted(_maker(index, n) for n in _last_convolutions(model, index)))} "
            f"and output {name!r} is not DFL boxes beside scores as YOLO11 has them: decoded our way, boxes differ "
            f"by up to {box_error:.3g} pixels and scores by {score_error:.3g}",
            remedy="check bins and strides in the spec; another head needs an export of its raw maps",
        )


def _as_exported(
    picture: npt.NDArray[np.uint8], own: ExportedModel, shape: tuple[int, ...], dtype: str
) -> Any:
    """A picture in the form that the exported graph takes."""
    given: Any = picture[..., ::-1] if own.pixels.order == "bgr" else picture
    if dtype == "float32":
        given = (given - np.array(own.pixels.mean)) / np.array(own.pixels.std)
    given = given if shape == picture.shape else given.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(given, dtype)


def _run(model: Any, feed: Tensors, outputs: list[str]) -> dict[str, Floats]:
    from onnxruntime import InferenceSession, SessionOptions

    settings = SessionOptions()
    settings.log_severity_level = 3
    session = InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return dict(zip(outputs, session.run(outputs, dict(feed)), strict=True))


@dataclass(frozen=True, slots=True)
class _End:
    """How a graph of one kind of head is cut.

    Attributes:
        find: called with the graph, the spec and the file's path; gives the spec's output names and for each the tensor
            of the graph that it is made from.
        steps: number of such a tensor's axes to the operators between it and the spec's output.
        labelled: what the names of those outputs begin with whose last axis holds one value per label.
        check: called with the graph, its input, the cut graph, the model and the path; refuses a cut that answers
            something else (InputError). None where nothing was computed behind the cut.
    """

    find: Callable[[Any, ModelSpec, Path], dict[str, str]]
    steps: Mapping[int, _Chain]
    labelled: str
    check: Callable[[Any, str, Any, ExportedModel, Path], None] | None = None


_LOGITS_END = _End(_logits_source, {4: [("Flatten", [], {})]}, LOGITS)
_ENDS: Mapping[str, _End] = {
    "detection": _End(_map_sources, {4: [("Transpose", [], {"perm": [0, 2, 3, 1]})]}, "cls", _check_maps),
    "classification": _LOGITS_END,
    "liveness": _LOGITS_END,
}
"""Kind of head to how other tools' graphs of it are cut; a graph of another kind must bring the spec's tensors."""
