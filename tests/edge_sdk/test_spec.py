import dataclasses

import pytest
import toys

from edge_sdk.errors import ManifestInvalid
from edge_sdk.image import LetterboxSpec
from edge_sdk.spec import ModelSpec, StatePair
from edge_sdk.state import State
from edge_sdk.tasks.detection import DetectionHead
from edge_sdk.tensors import TensorSpec

PIXELS = toys.SPEC.inputs[0]
MEMORY = TensorSpec("memory", (1, 4), "float32", "NC")
NEXT = dataclasses.replace(MEMORY, name="memory_next")


def scaled(strides=toys.STRIDES, bins=toys.BINS, side=toys.SIDE) -> ModelSpec:
    """The toy with these numbers and tensors that fit them, however odd the numbers are."""
    head = dataclasses.replace(toys.SPEC.head, strides=tuple(strides), bins=bins)
    inputs, outputs = head.tensors(side, side)
    return changed(head=head, inputs=inputs, outputs=outputs)


def changed(**fields) -> ModelSpec:
    return dataclasses.replace(toys.SPEC, **fields)


def remembering(**fields) -> ModelSpec:
    """The toy classifier with a state."""
    parts = {
        "inputs": (*toys.CLASSIFIER.inputs, MEMORY),
        "outputs": (*toys.CLASSIFIER.outputs, NEXT),
        "state": (StatePair("memory", "memory_next"),),
    }
    return dataclasses.replace(toys.CLASSIFIER, **{**parts, **fields})


def test_numbers_that_fit_each_other_are_taken():
    assert scaled(strides=(8, 16), bins=16, side=96).head.bins == 16


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("outputs", toys.SPEC.outputs[:-1], "outputs"),
        ("outputs", (*toys.SPEC.outputs, toys.SPEC.outputs[0]), "distinct"),
        ("outputs", (), "missing"),
        ("inputs", (), "missing"),
        ("inputs", (dataclasses.replace(PIXELS, dtype="float32"),), "not one picture"),
        ("inputs", (dataclasses.replace(PIXELS, dtype="int8"),), "uint8 or float32"),
        ("inputs", (dataclasses.replace(PIXELS, shape=(2, 64, 64, 3)),), "expected uint8"),
        ("inputs", (dataclasses.replace(PIXELS, shape=(1, 3, 64, 64)),), "pixels are"),
        ("inputs", (dataclasses.replace(PIXELS, shape=(1, 64, 3), layout="NHC"),), "pixels are"),
        ("inputs", (dataclasses.replace(PIXELS, layout="NHW"),), "layout"),
        ("inputs", (dataclasses.replace(PIXELS, name="../pixels"),), "letters, digits"),
        ("inputs", (PIXELS, MEMORY), "not one picture"),
        ("head", dataclasses.replace(toys.SPEC.head, labels=("red", "green", "blue")), "outputs"),
        ("head", dataclasses.replace(toys.SPEC.head, bins=8), "outputs"),
        ("head", dataclasses.replace(toys.SPEC.head, strides=(8, 16)), "outputs"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(field, value, match):
    with pytest.raises(ManifestInvalid, match=match):
        changed(**{field: value})


@pytest.mark.parametrize("labels", [(), ("red", "red")])
def test_labels_are_distinct(labels):
    with pytest.raises(ManifestInvalid, match="labels"):
        dataclasses.replace(toys.SPEC.head, labels=labels)


@pytest.mark.parametrize(
    "numbers",
    [
        {"strides": ()},
        {"strides": (-8,)},
        {"strides": (8, 8)},
        {"strides": (0, 16, 32)},
        {"strides": (24,)},  # does not divide the canvas: a strip at the edge would be blind
        {"bins": 0},
        {"bins": 1},  # every side would have length 0
        {"bins": 10**12},
        {"side": 0},
        {"side": -64},
        {"side": 8 * 10**6},
    ],
    ids=str,
)
def test_a_spec_that_no_machine_could_run_is_refused_before_memory_is_taken(numbers):
    with pytest.raises(ManifestInvalid, match="model spec"):
        scaled(**numbers)


def test_tensors_that_hold_too_much_together_are_refused():
    clip = TensorSpec("clip", (1, 64, 2048, 2048, 3), "uint8", "NTHWC")
    with pytest.raises(ManifestInvalid, match="values"):
        remembering(inputs=(*toys.CLASSIFIER.inputs, MEMORY, clip))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pad", -1),
        ("pad", 256),
        ("max_scale", 0.0),
        ("max_scale", -1.0),
        ("confidence", 0.0),
        ("confidence", 1.0),
        ("confidence", 7.0),
        ("iou", 0.0),
        ("iou", 1.5),
        ("max_faces", 0),
        ("max_faces", -1),
    ],
)
def test_a_number_outside_its_range_is_refused_by_name(field, value):
    letterbox = {"pad": 0, "max_scale": 2.0}
    part = (
        {"letterbox": LetterboxSpec(**{**letterbox, field: value})} if field in letterbox else {field: value}
    )
    with pytest.raises(ManifestInvalid, match=field):
        dataclasses.replace(toys.SPEC.head, **part)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "banana"])
def test_maps_are_float32(dtype):
    first, *others = toys.SPEC.outputs
    with pytest.raises(ManifestInvalid, match=first.name):
        changed(outputs=(dataclasses.replace(first, dtype=dtype), *others))


def test_state_is_apart_from_what_is_given_and_answered():
    spec = remembering()
    assert spec.given == toys.CLASSIFIER.inputs
    assert spec.answers == toys.CLASSIFIER.outputs
    assert spec.pixels == PIXELS or spec.pixels == toys.CLASSIFIER.inputs[0]
    assert (spec.task, spec.labels) == ("classification", toys.LABELS)


@pytest.mark.parametrize(
    "fields",
    [
        {"state": (StatePair("memory", "nothing"),)},
        {"state": (StatePair("nothing", "memory_next"),)},
        {"state": (StatePair("memory", "memory_next"), StatePair("memory", "logits"))},
        {"state": (StatePair("pixels", "memory_next"),)},
        {"outputs": (*toys.CLASSIFIER.outputs, dataclasses.replace(NEXT, shape=(1, 5)))},
        {"state": ()},  # then the memory is an input and an output that no classifier has
    ],
    ids=str,
)
def test_a_state_that_does_not_pair_is_refused(fields):
    with pytest.raises(ManifestInvalid, match=r"state|inputs|outputs"):
        remembering(**fields)


def test_a_state_begins_with_zeros_remembers_copies_and_forgets():
    import numpy as np

    state = State(remembering())
    assert state.tensors["memory"].tolist() == [[0, 0, 0, 0]]
    answer = np.ones((1, 4), np.float32)
    held = state.tensors["memory"]
    state.update({"memory_next": answer, "logits": answer})
    answer.fill(7)  # the session's memory is its own again
    assert state.tensors["memory"] is held
    assert held.tolist() == [[1, 1, 1, 1]]
    state.reset()
    assert held.tolist() == [[0, 0, 0, 0]]


def test_a_head_says_which_tensors_a_size_means():
    inputs, outputs = toys.SPEC.head.tensors(64, 64)
    assert (inputs, outputs) == (toys.SPEC.inputs, toys.SPEC.outputs)
    assert isinstance(toys.SPEC.head, DetectionHead)
