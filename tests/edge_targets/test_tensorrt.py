"""The TensorRT adapter against the public names of six versions, and its logic against a recording fake of each."""

import ast
import gc
import importlib
import importlib.util
import inspect
import signal
import sys
import types
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("onnxruntime", reason="the fake TensorRT computes by it")

import onnx
import toys

from edge_sdk.child import run_python
from edge_sdk.engine_cache import EngineCache
from edge_sdk.errors import (
    CompileFailed,
    InferFailed,
    InputError,
    LoadFailed,
    MissingDependency,
    UnsupportedRecipe,
)
from edge_sdk.spec import Gate, Recipe
from edge_sdk.target import LoadOptions, SourceModel, find_target, stand_in_of
from edge_sdk.tensors import check_tensors
from edge_sdk.verify import snr_db
from edge_targets import tensorrt as adapter
from edge_targets.conformance.several_inputs import CLIP, PAIR
from edge_targets.tensorrt import builder, cuda_memory, linter, session
from edge_targets.tensorrt.options import Options

VERSIONS = ("8.6.1", "10.0.1", "10.3.0", "10.13.3.9", "11.0.0.114", "11.4.0.106")
NAMES = Path(__file__).parents[3] / "shared" / "checks" / "trt_api"
FP16 = Recipe(name="fp16", precision="fp16", calibration_items=0, gate=Gate({"map50": 0.01}))
RECIPES = {"fp32": toys.FP32, "fp16": FP16, "int8": toys.INT8}
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "runtime": "Runtime",
    "plan": "ICudaEngine",
    "self.handle": "IExecutionContext",
    "error": "ParserError",
    "get_tensor_dtype()": "DataType",
}
"""What the adapter calls its TensorRT objects, and of which class they are."""
RTX_ONLY = {
    "ComputeCapability",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
}
"""Of tensorrt_rtx, whose build asks for them."""


@pytest.fixture(scope="module")
def artifacts(toy_onnx):
    model = SourceModel(toys.SPEC, toy_onnx)
    return {name: toys.compile_by(adapter.TARGET, model, recipe) for name, recipe in RECIPES.items()}


# The names.


def published(version):
    """Public names of a version: ``Class.member``, and ``Class`` for each."""
    path = NAMES / f"{version}.txt"
    if not path.exists():
        pytest.skip("needs the lists of TensorRT's public names in ../shared/checks/trt_api")
    names = set(path.read_text().split())
    return names | {name.split(".")[0] for name in names}


class Uses(ast.NodeVisitor):
    """TensorRT names that a module uses, each with the names that a guard around it has seen to exist."""

    def __init__(self):
        self.found, self._guards = set(), ()

    def visit_If(self, node):
        tested = [
            f"{self.path(call.args[0])}.{call.args[1].value}".removeprefix("trt.")
            for call in ast.walk(node.test)
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "hasattr"
        ]
        tested = [CLASSES.get(t.split(".")[0], t.split(".")[0]) + t[len(t.split(".")[0]) :] for t in tested]
        # Only a plain or conjoined hasattr proves that the name is there in the body.
        positive = not any(isinstance(n, (ast.Not, ast.Or)) for n in ast.walk(node.test))
        outer = self._guards
        self._guards = (*outer, *tested) if positive else outer
        self.visit(node.test)
        for child in node.body:
            self.visit(child)
        self._guards = outer
        for child in node.orelse:
            self.visit(child)

    def visit_Attribute(self, node):
        path = self.path(node)
        owner, _, member = path.rpartition(".")
        if owner == "trt" or owner.startswith("trt."):
            if member != "__version__":
                self.found.add((path.removeprefix("trt."), self._guards))
        elif owner in CLASSES:
            self.found.add((f"{CLASSES[owner]}.{member}", self._guards))
        self.generic_visit(node)

    def path(self, node):
        if isinstance(node, ast.Attribute):
            return f"{self.path(node.value)}.{node.attr}"
        if isinstance(node, ast.Call):
            return f"{self.path(node.func).rpartition('.')[2]}()"
        return getattr(node, "id", "?")


LOOKED_UP = {
    "BuilderFlag.FP16": lambda have: "BuilderFlag.INT8" in have,
    "BuilderFlag.INT8": lambda have: "BuilderFlag.INT8" in have,
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": lambda have: (
        "BuilderFlag.INT8" not in have or "NetworkDefinitionCreationFlag.STRONGLY_TYPED" in have
    ),
}
"""Flags whose guard is ``is_strongly_typed``: where its answer asks for them."""


def uses():
    found = set()
    for module in (session, builder):
        visitor = Uses()
        visitor.visit(ast.parse(inspect.getsource(module)))
        found |= visitor.found
    return found


def test_the_walk_finds_what_the_adapter_uses():
    names = {name for name, _ in uses()}
    assert {
        "Builder",
        "Builder.build_serialized_network",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_tensor_address",
        "ICudaEngine.get_tensor_dtype",
        "DataType.name",
        "MemoryPoolType.WORKSPACE",
        "OnnxParser.parse",
        "Runtime.deserialize_cuda_engine",
        "ParserError.node_name",
        "IProgressMonitor",
    } <= names
    assert len(names) > 30


@pytest.mark.data
@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_that_is_used_exists_in_every_version_where_its_branch_runs(version):
    have = published(version)
    missing = [
        name
        for name, guards in uses()
        if name not in have and LOOKED_UP.get(name, lambda have, guards=guards: set(guards) <= have)(have)
    ]
    assert set(missing) <= RTX_ONLY


@pytest.mark.data
@pytest.mark.parametrize("version", VERSIONS)
def test_the_fake_has_no_name_that_its_version_has_not(version, fake_tensorrt):
    have, trt = published(version), fake_tensorrt.version(version)
    renamed = {"_Network": "INetworkDefinition"}
    for name, value in vars(trt).items():
        if name.startswith("_") or isinstance(value, types.ModuleType):
            continue
        assert name in have, name
        for member in vars(value):
            if not member.startswith("_"):
                assert f"{renamed.get(name, name)}.{member}" in have, f"{name}.{member}"


# The versions.


@pytest.mark.parametrize("precision", RECIPES)
@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_builds_and_runs_each_precision_by_its_own_flags(
    version, precision, artifacts, fake_tensorrt, monkeypatch
):
    trt = fake_tensorrt.version(version)
    monkeypatch.setattr(
        builder,
        "build",
        lambda onnx, options, progress: builder.compile_plan(trt, onnx, options, progress),
    )
    with adapter.TARGET.load(artifacts[precision], toys.SPEC, options=LoadOptions()) as loaded:
        for name, expected in toys.answers().items():
            assert snr_db(expected, loaded.infer(toys.inputs())[name]) > (20 if precision == "int8" else 45)
    (network,), (build,) = fake_tensorrt.calls("create_network"), fake_tensorrt.calls("build")
    old, eleven = version.startswith("8"), version.startswith("11")
    typed = eleven or (not old and precision != "int8")
    assert ("STRONGLY_TYPED" in network["flags"]) == typed
    assert ("EXPLICIT_BATCH" in network["flags"]) == (not eleven)
    assert set(build["flags"]) == (
        set() if typed or precision == "fp32" else {"FP16"} if precision == "fp16" else {"FP16", "INT8"}
    )
    assert build["pools"]["WORKSPACE"] == 3 * 2**30 // 2


def test_only_float32_leaves_an_engine_whatever_it_computes_in(artifacts):
    for artifact in artifacts.values():
        graph = onnx.load_from_string(artifact.files["model.onnx"]).graph
        assert {v.type.tensor_type.elem_type for v in graph.output} == {onnx.TensorProto.FLOAT}
        assert linter.lint(onnx.load_from_string(artifact.files["model.onnx"])) == []


def test_what_it_cannot_do_of_a_recipe_is_refused(toy_onnx):
    recipe = Recipe("u8", "int8", 16, Gate({"map50": 0.05}), symmetric=False)
    with pytest.raises(UnsupportedRecipe, match="symmetric"):
        adapter.TARGET.compile(SourceModel(toys.SPEC, toy_onnx), recipe=recipe)


def test_a_network_that_leaves_float16s_range_is_not_compiled(toy_onnx, tmp_path):
    model = onnx.load(str(toy_onnx))
    for tensor in model.graph.initializer:
        if tensor.name == "scale":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(100, np.float32), "scale"))
    onnx.save(model, str(tmp_path / "large.onnx"))
    with pytest.raises(CompileFailed, match="float16 ends"):
        adapter.TARGET.compile(SourceModel(toys.SPEC, tmp_path / "large.onnx"), recipe=FP16)


# The session.


def load(artifact, tmp_path=None, **options):
    cache = None if tmp_path is None else EngineCache(tmp_path / "engines")
    progress = options.pop("progress", None)
    given = LoadOptions(cache=cache, engine=options, progress=progress)
    return adapter.TARGET.load(artifact, toys.SPEC, options=given)


def test_a_child_builds_and_tells_how_far_it_is(artifacts, fake_tensorrt):
    seen = []
    with load(artifacts["fp16"], progress=lambda *step: seen.append(step)) as loaded:
        assert loaded.built
    assert seen[0] == ("Building engine", 0, 2)
    assert seen[-1] == ("Building engine", 2, 2)
    assert {phase for phase, _, _ in seen} == {"Building engine"}


def test_a_version_without_a_monitor_builds_in_silence(artifacts, fake_tensorrt):
    fake_tensorrt.version("8.6.1")
    seen = []
    load(artifacts["fp16"], progress=lambda *step: seen.append(step)).close()
    assert seen == []


def test_closing_gives_everything_back_and_leaves_answers_readable(artifacts, fake_tensorrt, in_process):
    for graph in (False, True):
        loaded = load(artifacts["fp16"], cuda_graph=graph)
        held = loaded.infer(toys.inputs())["cls8"]
        before = held.copy()
        loaded.close()
        assert np.array_equal(held, before)
        del loaded, held
        gc.collect()
        assert fake_tensorrt.cuda.live == {}


def test_a_graph_is_captured_after_a_first_run_and_answers_the_same(artifacts, fake_tensorrt, in_process):
    with load(artifacts["fp16"]) as plain, load(artifacts["fp16"], cuda_graph=True) as captured:
        calls = fake_tensorrt.cuda.calls
        begin = calls.index("cudaStreamBeginCapture")
        assert "cudaStreamSynchronize" in calls[:begin]
        for seed in range(3):
            expected = {n: v.copy() for n, v in plain.infer(toys.inputs(seed)).items()}
            del calls[:]
            found = captured.infer(toys.inputs(seed))
            assert calls == ["cudaGraphLaunch", "cudaStreamSynchronize"]
            assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "call", ["cudaMalloc", "cudaHostAlloc", "cudaStreamCreateWithFlags", "cudaGraphInstantiate"]
)
def test_a_device_without_memory_is_an_error_that_leaks_nothing(call, artifacts, fake_tensorrt, in_process):
    cuda = fake_tensorrt.cuda
    cuda.failing[call] = 2
    with pytest.raises(LoadFailed, match=f"{call}.*cudaErrorMemoryAllocation"):
        load(artifacts["fp16"], cuda_graph=True)
    del cuda.failing[call]
    gc.collect()
    assert [v for v in cuda.live.values() if call != "cudaStreamCreateWithFlags" or v != "stream"] == []


def test_a_failing_gpu_is_an_infer_error_with_its_reason(artifacts, fake_tensorrt, in_process, monkeypatch):
    with load(artifacts["fp16"]) as loaded:
        monkeypatch.setenv("FAKE_TENSORRT_FAIL", "1")
        with pytest.raises(InferFailed, match="illegal memory access"):
            loaded.infer(toys.inputs())
        monkeypatch.delenv("FAKE_TENSORRT_FAIL")
        fake_tensorrt.cuda.failing["cudaStreamSynchronize"] = 719
        with pytest.raises(InferFailed, match="cudaErrorLaunchFailure"):
            loaded.infer(toys.inputs())
        fake_tensorrt.cuda.failing.clear()


def test_pixels_are_neither_broadcast_nor_cast(artifacts, fake_tensorrt, in_process):
    with load(artifacts["fp16"]) as loaded:
        for wrong in (np.zeros((1, 1, 1, 3), np.uint8), np.zeros((1, 64, 64, 3), bool)):
            with pytest.raises(InferFailed):
                loaded.infer({"pixels": wrong})


# The child.


@pytest.fixture
def in_process(fake_tensorrt, monkeypatch):
    trt = importlib.import_module("tensorrt")
    monkeypatch.setattr(
        builder,
        "build",
        lambda onnx, options, progress: builder.compile_plan(trt, onnx, options, progress),
    )


OPTIONS = builder.BuildOptions("fp16", 64 * 2**20)


@pytest.mark.parametrize(
    ("death", "said", "to_do"),
    [(signal.SIGKILL, "memory runs out", "install"), (signal.SIGSEGV, "SIGSEGV", "doctor")],
)
def test_a_killed_build_is_an_error_with_a_remedy(death, said, to_do, artifacts, fake_tensorrt, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT_DEATH", str(int(death)))
    with pytest.raises(LoadFailed, match=said) as caught:
        load(artifacts["fp16"])
    assert to_do in caught.value.remedy


def test_a_build_that_never_ends_is_ended(artifacts, fake_tensorrt, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT_DEATH", "0")
    with pytest.raises(LoadFailed, match="did not end within"):
        builder.build(artifacts["fp16"].files["model.onnx"], OPTIONS, timeout_s=2)


def test_a_child_without_the_engine_says_so(artifacts):
    if importlib.util.find_spec("tensorrt_rtx"):
        pytest.skip("tensorrt_rtx is installed here")
    options = builder.BuildOptions("fp16", 64 * 2**20, "tensorrt_rtx")
    with pytest.raises(LoadFailed, match="No module named 'tensorrt_rtx'"):
        builder.build(artifacts["fp16"].files["model.onnx"], options)


def test_the_parsers_error_names_the_node(toy_onnx, fake_tensorrt):
    with pytest.raises(LoadFailed, match=r"Transpose.*UInt8") as caught:
        builder.build(toy_onnx.read_bytes(), OPTIONS)
    assert "edge-sdk check" in caught.value.remedy


def test_the_builders_error_is_the_engines_own(artifacts, fake_tensorrt):
    fake_tensorrt.version("10.13.3.9")
    options = builder.BuildOptions("fp32", 64 * 2**20)
    trt = importlib.import_module("tensorrt")
    del trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    with pytest.raises(RuntimeError, match="half precision without the FP16 flag"):
        builder.compile_plan(trt, artifacts["fp16"].files["model.onnx"], options)


@pytest.mark.parametrize(("free", "limit"), [(0, 64), (200, 100), (3000, 1500), (64_000, 2048)])
def test_the_workspace_is_half_of_what_is_free_within_bounds(free, limit):
    assert builder.workspace_limit(free * 2**20) == limit * 2**20


def test_a_workspace_that_was_asked_for_is_taken(artifacts, fake_tensorrt, in_process):
    load(artifacts["fp16"], workspace_bytes=123 * 2**20).close()
    assert fake_tensorrt.calls("build")[0]["pools"]["WORKSPACE"] == 123 * 2**20


# The cache.


def test_the_second_start_builds_nothing(artifacts, fake_tensorrt, in_process, tmp_path):
    for built in (True, False):
        with load(artifacts["fp16"], tmp_path) as loaded:
            assert (loaded.built, loaded.cached) == (built, True)
            assert snr_db(toys.answers()["cls8"], loaded.infer(toys.inputs())["cls8"]) > 45
    assert len(fake_tensorrt.calls("build")) == 1


def test_it_knows_whether_a_load_will_build(artifacts, fake_tensorrt, in_process, tmp_path):
    def at_once(**options):
        given = LoadOptions(cache=EngineCache(tmp_path / "engines"), engine=options)
        return adapter.TARGET.starts_at_once(artifacts["fp16"], toys.SPEC, options=given)

    assert not at_once()
    load(artifacts["fp16"], tmp_path).close()
    assert at_once()
    assert not at_once(workspace_bytes=2**27)
    assert not adapter.TARGET.starts_at_once(artifacts["fp16"], toys.SPEC, options=LoadOptions())
    fake_tensorrt.cuda.failing["cudaGetDeviceProperties"] = 2
    assert not at_once()


@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: d[:50], lambda d: d[:-1] + bytes([d[-1] ^ 1])])
def test_a_damaged_engine_is_built_again_and_never_loaded(
    damage, artifacts, fake_tensorrt, in_process, tmp_path
):
    load(artifacts["fp16"], tmp_path).close()
    (path,) = (tmp_path / "engines").glob("*.engine")
    path.write_bytes(damage(path.read_bytes()))
    with load(artifacts["fp16"], tmp_path) as loaded:
        assert loaded.built
    with load(artifacts["fp16"], tmp_path) as loaded:
        assert not loaded.built


def test_an_engine_that_the_runtime_refuses_is_built_again(
    artifacts, fake_tensorrt, in_process, tmp_path, monkeypatch
):
    load(artifacts["fp16"], tmp_path).close()
    monkeypatch.setattr(EngineCache, "get", lambda self, facts: b"fake plan 9.9.9\n")
    with load(artifacts["fp16"], tmp_path) as loaded:
        assert loaded.built


def test_a_full_disk_works_uncached(artifacts, fake_tensorrt, in_process, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for _ in range(2):
        with load(artifacts["fp16"], tmp_path) as loaded:
            assert (loaded.built, loaded.cached) == (True, False)


def test_everything_that_an_engine_depends_on_is_in_its_key(artifacts, fake_tensorrt, monkeypatch):
    trt, cuda = fake_tensorrt.version("10.3.0"), cuda_memory.find_cuda()
    arguments = [trt, cuda, b"onnx", "fp16", toys.SPEC, Options()]
    facts = session.plan_facts(*arguments)
    assert set(facts) == {
        "onnx", "tensorrt", "cuda", "driver", "gpu", "compute_capability", "l4t", "precision", "shapes", "options"
    }  # fmt: skip
    assert (facts["gpu"], facts["compute_capability"]) == ("Fake Orin", "8.7")
    others = [
        (0, fake_tensorrt.version("10.0.1")),
        (2, b"other"),
        (3, "int8"),
        (4, toys.CLASSIFIER),
        (5, Options(workspace_bytes=1)),
    ]
    for place, value in others:
        changed = [*arguments]
        changed[place] = value
        assert session.plan_facts(*changed) != facts
    # What does not change the plan must not change its key.
    quick = Options(cuda_graph=True)
    assert session.plan_facts(*arguments[:5], quick) == facts


# The seam to CUDA.


def cupy_of(runtime):
    """cupy's runtime over the fake's: no prefix, no error codes."""

    class CUDARuntimeError(RuntimeError):
        pass

    def function(name):
        def run(*arguments):
            if name == "memcpyAsync":
                arguments = (*arguments[:3], runtime.cudaMemcpyKind(arguments[3]), arguments[4])
            if name == "graphInstantiate":
                arguments = (*arguments, 0)
            error, *values = getattr(runtime, "cuda" + name[0].upper() + name[1:])(*arguments)
            if error:
                raise CUDARuntimeError(error.name)
            if name == "getDeviceProperties":
                return {key: getattr(values[0], key) for key in ("name", "major", "minor")}
            return values[0] if len(values) == 1 else tuple(values)

        return run

    names = [n[4].lower() + n[5:] for n in vars(runtime) if n.startswith("cuda") and not n.endswith("_t")]
    return types.SimpleNamespace(CUDARuntimeError=CUDARuntimeError, **{n: function(n) for n in names})


@pytest.mark.parametrize("binding", ["cuda.bindings.runtime", "cuda.cudart", "cupy.cuda.runtime"])
def test_each_binding_serves(binding, artifacts, fake_tensorrt, in_process, monkeypatch):
    runtime = fake_tensorrt.cuda
    for name in ("cuda.bindings.runtime", "cuda.cudart", "cupy", "cupy.cuda", "cupy.cuda.runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    if binding.startswith("cupy"):
        monkeypatch.setitem(sys.modules, "cupy", types.ModuleType("cupy"))
        monkeypatch.setitem(sys.modules, "cupy.cuda", types.ModuleType("cupy.cuda"))
    served = cupy_of(runtime) if binding.startswith("cupy") else runtime
    monkeypatch.setitem(sys.modules, binding, served)
    cuda = cuda_memory.find_cuda()
    assert cuda.facts()["gpu"] == "Fake Orin"
    assert cuda.free_bytes() == 3 * 2**30
    stream, array = cuda.stream(), cuda.pinned((4,), "uint8")
    address = cuda.allocate(4)
    array[...] = (1, 2, 3, 4)
    graph = cuda.capture(stream, lambda: cuda.to_device(address, array, stream))
    cuda.launch(graph, stream)
    array[...] = 0
    cuda.to_host(array, address, stream)
    cuda.synchronize(stream)
    assert array.tolist() == [1, 2, 3, 4]
    runtime.failing["cudaMalloc"] = 2
    with pytest.raises(cuda_memory.CudaError, match="cudaMalloc: cudaErrorMemoryAllocation"):
        cuda.allocate(1)


def test_no_binding_is_named_with_the_command_that_installs_one(artifacts, fake_tensorrt, monkeypatch):
    for name in ("cuda.bindings.runtime", "cuda.cudart", "cupy.cuda.runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency) as caught:
        load(artifacts["fp16"])
    assert "face-edge-sdk[tensorrt]" in caught.value.remedy


def test_it_stands_in_nowhere_unasked():
    target = find_target("tensorrt")
    assert stand_in_of(target).name == "onnxruntime"
    assert stand_in_of(find_target("openvino")) is None


def test_a_workspace_of_nothing_is_refused():
    with pytest.raises(InputError, match="workspace_bytes must be at least 1"):
        Options(workspace_bytes=0)


@pytest.mark.parametrize("network", [PAIR, CLIP], ids=lambda n: n.spec.name)
def test_every_input_has_page_locked_memory_of_its_own(network, fake_tensorrt, in_process, tmp_path):
    model = SourceModel(network.spec, network.write_onnx(tmp_path / "network.onnx"))
    built = toys.compile_by(adapter.TARGET, model, FP16)
    for graph in (False, True):
        options = LoadOptions(engine={"cuda_graph": graph})
        with adapter.TARGET.load(built, network.spec, options=options) as loaded:
            for seed in range(3):
                inputs = network.inputs(seed)
                found = loaded.infer(inputs)
                for name, right in network.compute(inputs).items():
                    assert snr_db(right, found[name]) > 40
            with pytest.raises(InferFailed, match=network.spec.inputs[1].name):
                loaded.infer({network.spec.inputs[0].name: inputs[network.spec.inputs[0].name]})


def test_probes_look_at_every_input():
    from edge_targets.tensorrt.compile import probes

    for spec in (toys.SPEC, PAIR.spec, CLIP.spec):
        for inputs in probes(spec):
            check_tensors(spec.inputs, inputs)


def test_a_device_needs_neither_onnx_nor_the_host(artifacts, fake_tensorrt, in_process):
    host = [m for m in sys.modules if m.split(".")[0] in ("onnx", "edge_quantize")]
    source = "import sys; sys.modules.update(dict.fromkeys(('onnx', 'edge_quantize')))\n"
    source += "import edge_targets.tensorrt.session"
    ended = run_python(("-c", source), timeout_s=60)
    assert host  # the test itself has them
    assert ended.problem is None, ended.said
