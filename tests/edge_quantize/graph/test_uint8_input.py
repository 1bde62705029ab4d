"""The front of a graph: what may stand between uint8 pixels and the first convolution."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="host tool not installed")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edge_quantize.graph.uint8_input import Front, fronts, let_in  # noqa: E402


def graph(*nodes, factor=1 / 255):
    return helper.make_model(
        helper.make_graph(
            list(nodes),
            "front",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, (1, 8, 8, 3))],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.array(factor, np.float32), "factor")],
        )
    )


def node(kind, source, target, **attributes):
    return helper.make_node(kind, source.split(), [target], name=target, **attributes)


def front(model) -> Front | None:
    """The front of the one uint8 input."""
    found = fronts(model)
    assert len(found) < 2
    return found[0] if found else None


MOVE = node("Transpose", "pixels", "moved", perm=[0, 3, 1, 2])
CAST = node("Cast", "moved", "cast", to=TensorProto.FLOAT)
SCALE = node("Mul", "cast factor", "scaled")
USE = node("Relu", "scaled", "out")


def test_a_front_that_moves_casts_and_scales_is_found():
    found = front(graph(MOVE, CAST, SCALE, USE))
    assert (found.raw, found.scaled, found.nodes) == ("moved", "scaled", ("moved", "cast", "scaled"))
    assert found.scale == pytest.approx(1 / 255)


@pytest.mark.parametrize(
    ("nodes", "factor", "scaled"),
    [
        ((MOVE, CAST, node("Relu", "cast", "out")), 1 / 255, "cast"),
        ((MOVE, CAST, SCALE, USE), np.ones((3, 1, 1)), "cast"),
        ((MOVE, CAST, SCALE, USE), -1.0, "cast"),
        ((MOVE, CAST, SCALE, node("Relu", "cast", "other"), USE), 1 / 255, "cast"),
    ],
)
def test_what_is_more_than_one_positive_factor_is_left_to_the_network(nodes, factor, scaled):
    found = front(graph(*nodes, factor=factor))
    assert (found.scaled, found.scale) == (scaled, 1.0)


def test_a_graph_that_computes_with_the_pixels_otherwise_has_no_front():
    assert front(graph(node("Relu", "pixels", "out"))) is None


def test_what_still_reads_the_scaled_pixels_in_float_keeps_them():
    step = numpy_helper.from_array(np.array(1 / 255, np.float32), "step")
    zero = numpy_helper.from_array(np.array(0, np.uint8), "zero")
    quantize = node("QuantizeLinear", "scaled step zero", "q")
    dequantize = node("DequantizeLinear", "q step zero", "dq")
    for extra, left in (((), {"Cast", "Mul"}), ((node("Relu", "scaled", "other"),), set())):
        model = graph(MOVE, CAST, SCALE, quantize, dequantize, node("Relu", "dq", "out"), *extra)
        model.graph.initializer.extend([step, zero])
        found = front(graph(MOVE, CAST, SCALE, USE))
        assert let_in(model, found)
        kinds = [n.op_type for n in model.graph.node]
        assert "QuantizeLinear" not in kinds
        assert {"Cast", "Mul"} - set(kinds) == left
        assert next(n for n in model.graph.node if n.op_type == "DequantizeLinear").input[0] == "moved"
    assert not let_in(graph(MOVE, CAST, SCALE, USE), found)
