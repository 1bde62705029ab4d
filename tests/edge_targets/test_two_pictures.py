"""A network of two pictures of the same shape: nothing but their names tells them apart."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="host tool not installed")

import toys

from edge_sdk.spec import ModelSpec
from edge_sdk.target import LoadOptions, SourceModel, find_target, is_installed, stand_in_of
from edge_sdk.tensors import TensorSpec
from edge_targets.conformance.several_inputs import NumbersHead

SIDE = 16
SPEC = ModelSpec(
    "two-pictures",
    # Not in the order of the alphabet, and not in the graph's.
    tuple(TensorSpec(name, (1, SIDE, SIDE, 3), "uint8", "NHWC") for name in ("near", "Far_2")),
    (TensorSpec("answer", (1, 2), "float32", "NC"), TensorSpec("Also", (1, 2), "float32", "NC")),
    NumbersHead(kind="numbers", labels=("first", "second")),
    licence="Apache-2.0",
)
RNG = np.random.default_rng(3)
KERNELS = {
    name: RNG.normal(0, 2 / np.sqrt(3 * SIDE**2), (2, 3, SIDE, SIDE)).astype(np.float32)
    for name in ("near", "Far_2")
}


def compute(inputs):
    """The network in numpy."""
    seen = {
        name: np.einsum("nhwc,ochw->no", inputs[name] / np.float32(255), kernel)
        for name, kernel in KERNELS.items()
    }
    return {"answer": seen["near"] - 2 * seen["Far_2"], "Also": seen["near"] + seen["Far_2"]}


def given(seed):
    """Two pictures of coarse squares."""
    rng = np.random.default_rng(seed)
    return {
        name: np.ascontiguousarray(
            rng.integers(0, 256, (1, 4, 4, 3)).astype(np.uint8).repeat(4, 1).repeat(4, 2)
        )
        for name in KERNELS
    }


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], [numpy_helper.from_array(np.array(v, np.float32), n) for n, v in CONSTANTS.items()]
    for name, kernel in KERNELS.items():
        constants.append(numpy_helper.from_array(kernel, f"kernel_{name}"))
        nodes += [
            helper.make_node("Transpose", [name], [f"planes_{name}"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", [f"planes_{name}"], [f"floats_{name}"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"floats_{name}", "scale"], [f"unit_{name}"]),
            helper.make_node(
                "Conv", [f"unit_{name}", f"kernel_{name}"], [f"map_{name}"], name=f"conv_{name}"
            ),
            helper.make_node("Flatten", [f"map_{name}"], [f"seen_{name}"]),
        ]
    nodes += [
        helper.make_node("Mul", ["seen_Far_2", "two"], ["twice"]),
        helper.make_node("Sub", ["seen_near", "twice"], ["answer"]),
        helper.make_node("Add", ["seen_near", "seen_Far_2"], ["Also"]),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(n, kind, shape) for n in names]
        for names, kind, shape in (
            (("Far_2", "near"), TensorProto.UINT8, (1, SIDE, SIDE, 3)),
            (("Also", "answer"), TensorProto.FLOAT, (1, 2)),
        )
    )
    made = helper.make_graph(nodes, "two", inputs, outputs, constants)
    path = tmp_path_factory.mktemp("two") / "two.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


CONSTANTS = {"scale": 1 / 255, "two": 2.0}


@pytest.mark.parametrize("recipe", [toys.FP32, toys.INT8], ids=lambda r: r.name)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "tensorrt"])
def test_each_picture_reaches_the_network_by_its_name(engine, recipe, graph):
    target = find_target(engine)
    runs = target if is_installed(target) else stand_in_of(target)
    if runs is None or not is_installed(runs):
        pytest.skip(f"{engine} is not installed")
    frames = [given(seed) for seed in range(16)]
    artifact = toys.compile_by(target, SourceModel(SPEC, graph), recipe, frames)
    with runs.load(artifact, SPEC, options=LoadOptions(threads=1)) as session:
        for seed in range(3):
            inputs = given(100 + seed)
            found = {name: array.copy() for name, array in session.infer(inputs).items()}
            swapped = session.infer({"near": inputs["Far_2"], "Far_2": inputs["near"]})
            for name, wanted in compute(inputs).items():
                np.testing.assert_allclose(found[name], wanted, atol=1e-3 if recipe is toys.FP32 else 0.15)
            assert np.abs(swapped["answer"] - found["answer"]).max() > 0.3
