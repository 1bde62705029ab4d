"""A detector's or classifier's graph, as other tools export it, cut to the form that bundles are built from.

Exporters end a YOLO in one tensor (1, 4 + classes, cells): boxes in pixels beside scores in 0..1. One int8 scale over
both rounds every score to zero. The cut goes through the last learned convolutions instead, whose maps (side logits and
class logits of each stride) become outputs of their own; DFL, boxes and sigmoid are left to the decoder on the host.
What was cut is decoded and compared with what the graph itself answers: a head that does something else is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_quantize.own import OwnModel
from edge_sdk.errors import InputError
from edge_sdk.spec import ModelSpec
from edge_sdk.tensors import TensorSpec

Floats = npt.NDArray[np.float32]

_EXPORT = "export it with fixed shapes, float32, and the three strides' heads as YOLO11 and YOLO12 have them"
_BOX_TOLERANCE, _SCORE_TOLERANCE = 0.05, 1e-3
"""Pixels, and score: two orders of the same float operations differ by a tenth of it."""


def read_graph(path: Path) -> Any:
    """A whole ONNX model, checked.

    Raises:
        InputError: not there, not ONNX, or its weights are missing.
    """
    import onnx

    if not path.is_file():
        raise InputError(f"no ONNX file {path}", remedy="check the path")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and onnx's own errors share no base class
        raise InputError(
            f"{path} is not a usable ONNX file: {str(error).strip().splitlines()[0]}",
            remedy="export it again",
        ) from error
    return model


def fits(model: Any, own: OwnModel) -> bool:
    """Whether the graph has the spec's tensors already."""
    found = {
        name: (shape, dtype) for name, shape, dtype in _values((*model.graph.input, *model.graph.output))
    }
    wanted = (own.spec.input, *own.spec.outputs)
    return own.labels == own.spec.labels and all(found.get(t.name) == (t.shape, t.dtype) for t in wanted)


def adapt(model: Any, own: OwnModel, path: Path) -> Any:
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
    entry = _entry(model, spec, path)
    try:
        # Constants folded, batch norms in their convolutions, dead ends gone: one form for every exporter.
        slim = onnxslim.slim(model)
        slim = onnx.shape_inference.infer_shapes(slim, data_prop=True)
    except Exception as error:  # the tool's errors share no base class
        raise InputError(f"{path}: onnxslim cannot simplify it: {error}", remedy="export it again") from error
    # Our names must be free.
    names = {spec.input.name, *(t.name for t in spec.outputs)}
    graph = _renamed(slim, {name: f"{name}.exported" for name in names})
    entry = f"{entry}.exported" if entry in names else entry
    find = _head if spec.task == "detection" else _logits
    sources = find(graph, spec, path)
    cut = _cut(graph, entry, sources, own)
    onnx.checker.check_model(cut, full_check=True)
    if spec.task == "detection":
        _check_decode(graph, entry, cut, own, path)
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
    _, height, width, _ = spec.input.shape
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
    """A copy whose tensors are called otherwise."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
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


def _head(model: Any, spec: ModelSpec, path: Path) -> dict[str, str]:
    """Spec's output names to the tensors of the last learned convolutions, NCHW."""
    assert spec.decode is not None
    shapes = _shapes(model)
    found = {name: shapes[name] for name in _last_convolutions(model) if len(shapes.get(name, ())) == 4}
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
            seen = ", ".join(f"{_maker(model, n)} {_shown(s)}" for n, s in found.items())
            raise InputError(
                f"{path}: output {tensor.name!r} of the spec needs one convolution that ends in "
                f"(1, {channels}, {height}, {width}), {channels} {kind}, but {len(fitting)} do; "
                f"the graph's last convolutions are {seen}",
                remedy="correct labels, bins, strides or size in the spec; " + _EXPORT,
            )
        sources[tensor.name] = fitting[0]
    return sources


def _maker(model: Any, tensor: str) -> str:
    """Name of the node that makes a tensor."""
    return next(str(n.name or n.op_type) for n in model.graph.node if tensor in n.output)


def _last_convolutions(model: Any) -> list[str]:
    """Outputs of the learned convolutions that are met first on the way back from the outputs."""
    from onnx import numpy_helper

    producers = {name: node for node in model.graph.node for name in node.output}
    constants = {t.name: t for t in model.graph.initializer}
    stack, seen, found = [v.name for v in model.graph.output], set[str](), []
    while stack:
        name = stack.pop()
        node = producers.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        if node.op_type == "Conv":
            kernel = constants.get(node.input[1])
            # DFL's expectation is a convolution with the constants 0, 1, 2 ... as its only kernel.
            values = None if kernel is None else numpy_helper.to_array(kernel).reshape(-1)
            if values is None or not np.array_equal(values, np.arange(len(values), dtype=values.dtype)):
                found.append(name)
                continue
        stack.extend(node.input)
    return found


def _logits(model: Any, spec: ModelSpec, path: Path) -> dict[str, str]:
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
    producers = {out: node for node in model.graph.node for out in node.output}
    if name in producers and producers[name].op_type == "Softmax":
        name = str(producers[name].input[0])
    return {"logits": name}


def _cut(model: Any, entry: str, sources: dict[str, str], own: OwnModel) -> Any:
    """The part of the graph between the input and ``sources``, with our front and our ends."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    spec = own.spec
    part = onnx.utils.Extractor(model).extract_model([entry], sorted(set(sources.values())))
    graph, shapes = part.graph, _shapes(model)
    kind = next(v for v in _values(model.graph.input) if v[0] == entry)
    front, constants = _front(spec, own, entry, kind[1], kind[2])
    ends = []
    for tensor in spec.outputs:
        source = sources[tensor.name]
        if spec.task == "detection":
            ends.append(helper.make_node("Transpose", [source], [tensor.name], perm=[0, 2, 3, 1]))
            continue
        flat = source
        if len(shapes[source]) == 4:
            flat = "flat.exported"
            ends.append(helper.make_node("Flatten", [source], [flat]))
        if own.labels != spec.labels:
            order = np.array([own.labels.index(label) for label in spec.labels], np.int64)
            constants.append(numpy_helper.from_array(order, "label_order"))
            ends.append(helper.make_node("Gather", [flat, "label_order"], [tensor.name], axis=1))
        else:
            ends.append(helper.make_node("Identity", [flat], [tensor.name]))
    for index, node in enumerate(ends):
        node.name = f"/end/{node.op_type}_{index}"
    nodes = [*front, *graph.node, *ends]
    whole = helper.make_graph(
        nodes,
        spec.name,
        [_value(spec.input, TensorProto.UINT8)],
        [_value(t, TensorProto.FLOAT) for t in spec.outputs],
        [*graph.initializer, *constants],
    )
    made = helper.make_model(
        whole, opset_imports=part.opset_import, ir_version=model.ir_version, producer_name="face-edge-sdk"
    )
    return onnx.shape_inference.infer_shapes(made)


def _value(tensor: TensorSpec, kind: int) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(tensor.name, kind, tensor.shape)


def _front(
    spec: ModelSpec, own: OwnModel, entry: str, shape: tuple[int, ...], dtype: str
) -> tuple[list[Any], list[Any]]:
    """Nodes and constants from uint8 NHWC pixels to what the graph expects as ``entry``."""
    from onnx import TensorProto, helper, numpy_helper

    pixels, steps, constants = own.pixels, list[tuple[str, list[str], dict[str, Any]]](), list[Any]()

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
        # One number where one will do: a constant a channel costs every engine a broadcast.
        alike = len(set(scale)) == 1
        steps.append(("Mul", [constant("front.scale", scale[0] if alike else scale.reshape(place))], {}))
        if shift.any():
            steps.append(("Add", [constant("front.shift", shift.reshape(place))], {}))
    steps = steps or [("Identity", [], {})]
    nodes, source = [], spec.input.name
    for index, (kind, more, attributes) in enumerate(steps):
        target = entry if index == len(steps) - 1 else f"front.{index}"
        nodes.append(helper.make_node(kind, [source, *more], [target], name=f"/front/{kind}", **attributes))
        source = target
    return nodes, constants


def _check_decode(model: Any, entry: str, cut: Any, own: OwnModel, path: Path) -> None:
    """Decode the cut graph's maps and hold them against what the graph itself answers to the same picture."""
    whole = [v for v in _values(model.graph.output) if len(v[1]) == 3]
    if len(model.graph.output) != 1 or not whole:
        return  # the maps themselves were the outputs: nothing was decoded
    name, shape, _ = whole[0]
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, own.spec.input.shape).astype(np.uint8)
    given = _as_exported(picture, own, next(v for v in _values(model.graph.input) if v[0] == entry))
    (answer,) = _run(model, {entry: given}, [name])
    rows = answer[0] if shape[2] == 4 + len(own.labels) else answer[0].T
    boxes, logits = _decoded(
        dict(zip(_names(own), _run(cut, {own.spec.input.name: picture}, _names(own)), strict=True)), own.spec
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
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    score_error = min(float(np.abs(rows[:, 4:] - form).max()) for form in (scores, logits))
    if not (box_error <= _BOX_TOLERANCE and score_error <= _SCORE_TOLERANCE):
        raise InputError(
            f"{path}: the head between {', '.join(sorted(_maker(model, n) for n in _last_convolutions(model)))} "
            f"and output {name!r} is not DFL boxes beside scores as YOLO11 has them: decoded our way, boxes differ "
            f"by up to {box_error:.3g} pixels and scores by {score_error:.3g}",
            remedy="check bins and strides in the spec; another head needs an export of its raw maps",
        )


def _names(own: OwnModel) -> list[str]:
    return [t.name for t in own.spec.outputs]


def _as_exported(
    picture: npt.NDArray[np.uint8], own: OwnModel, kind: tuple[str, tuple[int, ...], str]
) -> Any:
    """A picture in the form that the exported graph takes."""
    _, shape, dtype = kind
    given: Any = picture[..., ::-1] if own.pixels.order == "bgr" else picture
    if dtype == "float32":
        given = (given - np.array(own.pixels.mean)) / np.array(own.pixels.std)
    given = given if shape == own.spec.input.shape else given.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(given, dtype)


def _run(model: Any, feed: dict[str, Any], outputs: list[str]) -> list[Floats]:
    from onnxruntime import InferenceSession, SessionOptions

    settings = SessionOptions()
    settings.log_severity_level = 3
    session = InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    answers: list[Floats] = session.run(outputs, feed)
    return answers


def _decoded(maps: dict[str, Floats], spec: ModelSpec) -> tuple[Floats, Floats]:
    """Every cell's box (cells, 4) xyxy and class logits (cells, classes), strides in the spec's order."""
    assert spec.decode is not None
    boxes, logits = [], []
    for stride in spec.decode.strides:
        sides = maps[f"box{stride}"].astype(np.float64)
        _, height, width, _ = sides.shape
        sides = sides.reshape(-1, 4, spec.decode.bins)
        weights = np.exp(sides - sides.max(2, keepdims=True))
        distances = (weights @ np.arange(spec.decode.bins)) / weights.sum(2) * stride
        y, x = np.mgrid[0:height, 0:width]
        middle = (np.stack((x.ravel(), y.ravel()), 1) + 0.5) * stride
        boxes.append(np.concatenate((middle - distances[:, :2], middle + distances[:, 2:]), 1))
        logits.append(maps[f"cls{stride}"].reshape(-1, len(spec.labels)))
    return np.concatenate(boxes).astype(np.float32), np.concatenate(logits)
