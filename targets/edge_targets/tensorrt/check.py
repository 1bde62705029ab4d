"""A bundle for TensorRT held against TensorRT's rules on a machine that has none: ``edge-sdk check``.

Static, then NVIDIA's own tools as far as they run without a GPU. What passes here can still be refused by a board
(another compiler backend, less memory); what fails here fails there.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_quantize.graph.blocks import in_float, of_onnx
from edge_sdk import onnx_file
from edge_sdk.bundle import Bundle
from edge_sdk.child import run_python
from edge_sdk.errors import InputError, LoadFailed, MissingDependency
from edge_sdk.profile import Profile
from edge_targets.tensorrt import TARGET, builder, linter
from edge_targets.tensorrt.linter import Finding
from edge_targets.tensorrt.operators import OPERATORS, Version
from edge_targets.tensorrt.session import BUILD, MODEL

Status = Literal["passed", "failed", "skipped"]

VERSIONS: Mapping[str, Version] = {"8.6": (8, 6), "10.3": (10, 3), "11": (11, 0)}
"""What JetPack 6.0 has, what 6.1 and later have, and the next generation."""
OPSET = 17
"""The newest that all of them parse; 8.6 ends here."""
SANITIZE_TIMEOUT_S = 300
_POLYGRAPHY = "import sys; from polygraphy.tools import main; sys.exit(main())"
"""What its command does; it has no ``python -m``, and its script need not be on the path."""
AOT_CAPABILITY = "SM86"
"""Nearest to Orin's 8.7 that the ahead-of-time compiler knows."""

RULES: Mapping[str, str] = {
    "onnx": "the file is valid ONNX with inferable shapes",
    "opset": f"the opset is at most {OPSET}, the newest that TensorRT 8.6 to 11 all parse",
    "operator": "every version of TensorRT that the check is for has the operator",
    "attribute": "the operator is used as TensorRT supports it",
    "tensors": "inputs and outputs are the spec's, with fixed shapes",
    "precision": "the types in the graph are those of the recipe",
    **linter.RULES,
}
"""Rule name to what it says."""


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a check.

    Attributes:
        name: of the tool or kind of rule.
        status: ``skipped`` where the tool is not installed.
        detail: what it was, or why it was skipped.
        findings: what it found.
    """

    name: str
    status: Status
    detail: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    Attributes:
        precision: of the bundle.
        steps: in order.
    """

    precision: str
    steps: tuple[Step, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed; what was skipped did not."""
        return all(step.status != "failed" for step in self.steps)

    def __str__(self) -> str:
        """One line per step, and below it one per finding."""
        lines = []
        for step in self.steps:
            lines.append(f"  {step.status:<8}{step.name:<14}{step.detail}")
            lines += [f"    {finding}" for finding in step.findings]
        return "\n".join(lines)


def check(
    bundle: Bundle,
    profile: Profile,
    *,
    versions: Iterable[str] = tuple(VERSIONS),
    progress: Callable[[str, int, int], None] | None = None,
) -> CheckReport:
    """Hold a bundle against what TensorRT will ask of it.

    Args:
        bundle: for TensorRT.
        profile: of the board.
        versions: keys of :data:`VERSIONS`.
        progress: called with (step, done, of).

    Raises:
        InputError: the bundle or the board is for another engine.
        MissingDependency: onnx is not installed.
    """
    if profile.engine != TARGET.name:
        raise InputError(
            f"{profile.name} runs {profile.engine}: there is nothing to check without the board",
            remedy="name a board with TensorRT, such as jetson-orin-nano",
        )
    if bundle.manifest.target != TARGET.name:
        raise InputError(
            f"the bundle is for {bundle.manifest.target}, {profile.name} runs {TARGET.name}",
            remedy=f"build it with --target {profile.name}",
        )
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency(
            f"onnx cannot be imported: {error}", remedy="pip install 'face-edge-sdk[host]'"
        ) from error
    files = bundle.artifact.files
    if missing := [name for name in (MODEL, BUILD) if name not in files]:
        raise InputError(f"the bundle has no {missing[0]}", remedy="build it again")
    data = files[MODEL]
    precision = str(json.loads(files[BUILD])["precision"])
    try:
        model = onnx.load_from_string(data)
        problem = onnx_file.problem(data, None)  # the tools below would follow a name to another file
    except Exception as error:  # protobuf's own errors share no base class
        problem = f"is not ONNX: {error}"
    if problem:
        finding = Finding("onnx", MODEL, problem)
        return CheckReport(
            precision, (Step("onnx.checker", "failed", f"onnx {onnx.__version__}", (finding,)),)
        )
    wanted = list(versions)
    steps: tuple[tuple[str, Callable[[], Step]], ...] = (
        ("onnx.checker", lambda: _checker(model)),
        ("rules", lambda: _rules(model, bundle, precision, wanted)),
        ("qdq", lambda: _qdq(model, bundle)),
        ("polygraphy", lambda: _polygraphy(data)),
        ("tensorrt-rtx", lambda: _ahead_of_time(data, precision)),
    )
    done: list[Step] = []
    for index, (name, run) in enumerate(steps):
        if progress is not None:
            progress(name, index, len(steps))
        done.append(run())
    return CheckReport(precision, tuple(done))


def _step(name: str, detail: str, findings: Iterable[Finding]) -> Step:
    found = tuple(findings)
    return Step(name, "failed" if found else "passed", detail, found)


def _checker(model: Any) -> Step:
    import onnx

    detail = f"onnx {onnx.__version__}, with shape inference"
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker's and the shape inference's errors share no base class
        return _step("onnx.checker", detail, [Finding("onnx", MODEL, _short(str(error)))])
    return _step("onnx.checker", detail, ())


def _rules(model: Any, bundle: Bundle, precision: str, versions: list[str]) -> Step:
    findings = [
        *_opset(model),
        *_operators(model, versions),
        *_attributes(model),
        *_tensors(model, bundle),
        *_types(model, precision),
    ]
    kinds = len({node.op_type for node in model.graph.node})
    return _step(
        "rules", f"{len(model.graph.node)} nodes, {kinds} operators, TensorRT {', '.join(versions)}", findings
    )


def _qdq(model: Any, bundle: Bundle) -> Step:
    kept = [op.name for op in in_float(of_onnx(model), bundle.manifest.recipe.keep_float)]
    pairs = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    return _step("qdq", f"{pairs} pairs", linter.lint(model, keep_float=kept))


def _opset(model: Any) -> Iterable[Finding]:
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            yield Finding("opset", MODEL, f"operators of domain {entry.domain!r} need a plugin")
        elif entry.version > OPSET:
            yield Finding("opset", MODEL, f"opset {entry.version}")


def _operators(model: Any, versions: list[str]) -> Iterable[Finding]:
    for node in model.graph.node:
        since = OPERATORS.get(node.op_type)
        if since is None:
            yield Finding("operator", node.name or node.op_type, f"{node.op_type} is not in the allow-list")
        elif without := [v for v in versions if VERSIONS[v] < since]:
            problem = f"TensorRT {', '.join(without)} is not known to have {node.op_type}"
            yield Finding("operator", node.name or node.op_type, problem)


def _attributes(model: Any) -> Iterable[Finding]:
    import onnx

    constants = {t.name for t in model.graph.initializer}
    constants |= {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
    for node in model.graph.node:
        values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        problem = None
        if node.op_type in ("AveragePool", "MaxPool") and any(d != 1 for d in values.get("dilations", ())):
            problem = f"dilations are {list(values['dilations'])}, supported is 1"
        elif node.op_type in ("MaxPool", "LayerNormalization", "Dropout") and any(node.output[1:]):
            problem = "only the first output is supported"
        elif node.op_type == "Resize":
            problem = _resize(values)
        elif node.op_type in _CONSTANT_INPUTS:
            index = _CONSTANT_INPUTS[node.op_type]
            if len(node.input) > index and node.input[index] and node.input[index] not in constants:
                problem = f"input {node.input[index]!r} must be a constant"
        if problem:
            yield Finding("attribute", node.name or node.op_type, f"{node.op_type}: {problem}")


_CONSTANT_INPUTS = {"CumSum": 1, "ReduceSum": 1, "Slice": 3, "Squeeze": 1, "TopK": 1, "Unsqueeze": 1}
"""Operator to the input that some version wants as a constant: axes, and K."""


def _resize(values: Mapping[str, Any]) -> str | None:
    """What of a Resize is not supported."""
    for name, default, known in (
        ("mode", b"nearest", (b"nearest", b"linear")),
        (
            "coordinate_transformation_mode",
            b"half_pixel",
            (b"half_pixel", b"pytorch_half_pixel", b"tf_half_pixel_for_nn", b"asymmetric", b"align_corners"),
        ),
    ):
        if values.get(name, default) not in known:
            return f"{name} is {values[name].decode()}"
    return None


def _tensors(model: Any, bundle: Bundle) -> Iterable[Finding]:
    import onnx

    spec = bundle.manifest.spec
    found = {}
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
        found[value.name] = (shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name)
    expected = {t.name: (t.shape, t.dtype) for t in (*spec.inputs, *spec.outputs)}
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            yield Finding("tensors", name, f"the graph has {found.get(name)}, the spec {expected.get(name)}")


def _types(model: Any, precision: str) -> Iterable[Finding]:
    from onnx import TensorProto

    factors = {name for n in model.graph.node if n.op_type == "Resize" for name in n.input[1:3] if name}
    for tensor in model.graph.initializer:
        half, single = TensorProto.FLOAT16, TensorProto.FLOAT
        wrong = {"fp16": single, "fp32": half}.get(precision)
        if tensor.data_type in (wrong, TensorProto.DOUBLE) and tensor.name not in factors:
            kind = TensorProto.DataType.Name(tensor.data_type)
            yield Finding("precision", tensor.name, f"a constant of {kind} in a network of {precision}")
    pairs = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if pairs != precision.startswith("int8"):
        problem = "has quantized layers" if pairs else "quantizes nothing"
        yield Finding("precision", MODEL, f"the network {problem}, its recipe says {precision}")


def _polygraphy(data: bytes) -> Step:
    """NVIDIA's sanitizer: constants folded, shapes inferred by onnxruntime; what it writes must still be valid."""
    import onnx

    if missing := [m for m in ("polygraphy", "onnx_graphsurgeon") if importlib.util.find_spec(m) is None]:
        return Step(
            "polygraphy", "skipped", f"{missing[0]} is not installed: pip install 'face-edge-sdk[jetson]'"
        )
    from importlib.metadata import version

    detail = f"polygraphy {version('polygraphy')}: surgeon sanitize --fold-constants"
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        given.write_bytes(data)
        ended = run_python(
            ("-c", _POLYGRAPHY, "surgeon", "sanitize", "--fold-constants", str(given), "-o", str(made)),
            timeout_s=SANITIZE_TIMEOUT_S,
            # It would else fetch packages that it misses.
            changes={"POLYGRAPHY_AUTOINSTALL_DEPS": "0"},
        )
        problem = ""
        if ended.problem is not None:
            # It tells some problems on its standard output.
            said = next((line for line in reversed(ended.lines) if line.strip()), ended.problem)
            problem = ended.problem if ended.timed_out else _short(ended.said or said)
        if not problem:
            try:
                onnx.checker.check_model(str(made), full_check=True)
            except Exception as error:  # the checker's errors share no base class
                problem = f"what it wrote is not valid: {_short(str(error))}"
    return _step("polygraphy", detail, [Finding("onnx", MODEL, problem)] if problem else ())


def _ahead_of_time(data: bytes, precision: str) -> Step:
    """NVIDIA's parser and compiler, by the adapter's own build, where their library for other GPUs is installed."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        return Step(
            "tensorrt-rtx", "skipped", "tensorrt_rtx is not installed: pip install tensorrt-rtx-cu13 (258 MB)"
        )
    from importlib.metadata import PackageNotFoundError, version

    found = "unknown"
    for name in ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"):
        try:
            found = version(name)
            break
        except PackageNotFoundError:
            continue
    detail = f"tensorrt-rtx {found}, compiled ahead of time for {AOT_CAPABILITY}"
    options = builder.BuildOptions(precision, builder.MAX_WORKSPACE, "tensorrt_rtx", AOT_CAPABILITY)
    try:
        plan = builder.build(data, options)
    except LoadFailed as error:
        return _step("tensorrt-rtx", detail, [Finding("operator", MODEL, error.message)])
    return _step("tensorrt-rtx", f"{detail}: {len(plan) / 1e6:.1f} MB", ())


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
