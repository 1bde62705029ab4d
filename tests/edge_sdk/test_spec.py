import dataclasses

import pytest
import toys

from edge_sdk.errors import ManifestInvalid
from edge_sdk.spec import ModelSpec
from edge_sdk.tensors import TensorSpec


def scaled(strides=toys.STRIDES, bins=toys.BINS, side=toys.SIDE):
    """The toy's fields with outputs that fit these numbers, however odd the numbers are."""
    outputs = tuple(
        TensorSpec(f"{kind}{s}", (1, side // s, side // s, channels), "float32", "NHWC")
        for s in strides
        for kind, channels in (("box", 4 * bins), ("cls", len(toys.LABELS)))
    )
    return {
        "outputs": outputs,
        "input": dataclasses.replace(toys.SPEC.input, shape=(1, side, side, 3)),
        "decode": dataclasses.replace(toys.SPEC.decode, strides=tuple(strides), bins=bins),
    }


def changed(**fields) -> ModelSpec:
    return dataclasses.replace(toys.SPEC, **fields)


def test_numbers_that_fit_each_other_are_taken():
    assert changed(**scaled(strides=(8, 16), bins=16, side=96)).decode.bins == 16


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("labels", (), "labels"),
        ("labels", ("red", "red"), "labels"),
        ("labels", ("red", "green", "blue"), "outputs"),
        ("outputs", toys.SPEC.outputs[:-1], "outputs"),
        ("outputs", (*toys.SPEC.outputs, toys.SPEC.outputs[0]), "outputs"),
        ("input", dataclasses.replace(toys.SPEC.input, dtype="float32"), "uint8"),
        ("input", dataclasses.replace(toys.SPEC.input, shape=(2, 64, 64, 3)), "uint8"),
        ("input", dataclasses.replace(toys.SPEC.input, shape=(1, 3, 64, 64)), "uint8"),
        ("input", dataclasses.replace(toys.SPEC.input, shape=(1, 64, 3)), "uint8"),
        ("decode", dataclasses.replace(toys.SPEC.decode, bins=8), "outputs"),
        ("decode", dataclasses.replace(toys.SPEC.decode, strides=(8, 16)), "outputs"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(field, value, match):
    with pytest.raises(ManifestInvalid, match=match):
        changed(**{field: value})


@pytest.mark.parametrize(
    "numbers",
    [
        {"strides": ()},
        {"strides": (-8,)},
        {"strides": (8, 8)},
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
        changed(**scaled(**numbers))


def test_a_stride_of_zero_is_refused():
    with pytest.raises(ManifestInvalid, match="stride"):
        changed(decode=dataclasses.replace(toys.SPEC.decode, strides=(0, 16, 32)))


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("preprocessing", "pad", -1),
        ("preprocessing", "pad", 256),
        ("preprocessing", "max_scale", 0.0),
        ("preprocessing", "max_scale", -1.0),
        ("decode", "confidence", 0.0),
        ("decode", "confidence", 1.0),
        ("decode", "confidence", 7.0),
        ("decode", "iou", 0.0),
        ("decode", "iou", 1.5),
        ("decode", "max_faces", 0),
        ("decode", "max_faces", -1),
    ],
)
def test_a_number_outside_its_range_is_refused_by_name(part, field, value):
    with pytest.raises(ManifestInvalid, match=field):
        changed(**{part: dataclasses.replace(getattr(toys.SPEC, part), **{field: value})})


@pytest.mark.parametrize("dtype", ["float16", "int8", "banana"])
def test_maps_are_float32(dtype):
    first, *others = toys.SPEC.outputs
    with pytest.raises(ManifestInvalid, match=first.name):
        changed(outputs=(dataclasses.replace(first, dtype=dtype), *others))
