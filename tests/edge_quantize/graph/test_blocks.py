"""Names of a network's parts: the same for every engine, because weights and order tell which operator is which."""

import numpy as np
import pytest

from edge_quantize.graph.blocks import (
    Operator,
    fingerprint,
    in_float,
    kinds,
    located,
    names,
    neighbours,
    of_onnx,
    same_weights,
)
from edge_sdk.errors import InputError


def op(name, kind, inputs, path=None):
    return Operator(name, kind, tuple(inputs.split()), (name,), path, path and fingerprint(np.ones(3)))


NETWORK = located(
    [
        op("scale", "Mul", "pixels"),
        op("stem", "Conv", "scale", "net.stem"),
        op("a", "Conv", "stem", "net.left.0"),
        op("act", "Relu", "a"),
        op("b", "Conv", "act", "net.left.1"),
        op("c", "Conv", "stem", "net.right"),
        op("join", "Concat", "b c"),
        op("weigh", "MatMul", "join"),
        op("soft", "Softmax", "weigh"),
        op("head", "Conv", "soft", "net.head.0"),
        op("out", "Conv", "head", "net.head.1"),
        op("end", "Transpose", "out"),
    ]
)


def paths():
    return {o.name: o.path for o in NETWORK}


def test_what_has_no_weights_belongs_with_what_feeds_it():
    assert paths()["act"] == "net.left.0"
    assert paths()["end"] == "net.head.1"


def test_what_nothing_with_weights_feeds_belongs_with_what_it_feeds():
    assert paths()["scale"] == "net.stem" or paths()["scale"].startswith("net")
    assert paths()["scale"] == "net.stem"


def test_what_joins_two_parts_belongs_with_the_part_that_takes_it():
    assert paths()["join"] == paths()["weigh"] == paths()["soft"] == "net.head.0"


def test_blocks_cover_every_weighted_operator_once_and_are_small():
    found = names(NETWORK, share=3)
    assert found == ["net.stem", "net.left", "net.right", "net.head"]
    for o in NETWORK:
        if o.weighted:
            assert sum(o.path == n or o.path.startswith(n + ".") for n in found) == 1
    assert names(NETWORK, share=6) == [o.path for o in NETWORK if o.weighted]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ((), []),
        (("net.left",), ["a", "act", "b"]),
        (("net.le",), None),
        (("Softmax", "MatMul"), ["weigh", "soft"]),
        (("net.stem", "Concat"), ["scale", "stem", "join"]),
        (("Conv",), None),
        (("net",), [o.name for o in NETWORK]),
    ],
)
def test_a_path_means_all_below_it_and_a_kind_all_without_weights(keep, expected):
    if expected is None:
        with pytest.raises(InputError, match=keep[0]):
            in_float(NETWORK, keep)
    else:
        assert [o.name for o in in_float(NETWORK, keep)] == expected


def test_kinds_and_their_neighbours():
    assert kinds(NETWORK) == ["Mul", "Relu", "Concat", "MatMul", "Softmax", "Transpose"]
    assert neighbours(NETWORK) == [("Concat", "MatMul"), ("MatMul", "Softmax")]


def test_neither_a_layout_nor_a_factor_changes_a_fingerprint_and_a_value_does():
    kernel = np.random.default_rng(0).normal(size=(4, 3, 2, 5)).astype(np.float32)
    folded = (kernel.transpose(0, 2, 3, 1) * np.float32(1 / 255)).copy()
    assert same_weights(fingerprint(kernel), fingerprint(folded))
    other = kernel.copy()
    other[0, 0, 0, 0] += 0.1
    assert not same_weights(fingerprint(kernel), fingerprint(other))


@pytest.mark.parametrize(
    ("node", "weights", "path"),
    [
        ("/net/p3/p3.2/cv1/cv1.0/Conv", "net.p3.2.cv1.0.weight", "net.p3.2.cv1.0"),
        ("/model.22/cv2.0/cv2.0.2/Conv", "model.22.cv2.0.2.weight", "model.22.cv2.0.2"),
        ("Conv_7", "backbone.3.weight", "backbone.3"),
        ("", "w", "y"),
    ],
)
def test_paths_are_read_as_exporters_write_them(node, weights, path):
    onnx = pytest.importorskip("onnx", reason="host tool not installed")
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", weights], ["y"], name=node)],
        "one",
        [helper.make_tensor_value_info("x", 1, (1, 3, 4, 4))],
        [helper.make_tensor_value_info("y", 1, (1, 2, 4, 4))],
        [onnx.numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), weights)],
    )
    (found,) = of_onnx(helper.make_model(graph))
    assert found.path == path
    assert found.weighted
