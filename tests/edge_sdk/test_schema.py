import dataclasses
import json

import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk import zoo
from edge_sdk.errors import ManifestInvalid
from edge_sdk.schema import from_plain, to_plain
from edge_sdk.spec import Gate, ModelSpec, Recipe

names = st.text(min_size=1, max_size=12)
recipes = st.builds(
    Recipe,
    name=names,
    precision=st.sampled_from(["fp32", "int8"]),
    calibration_items=st.integers(0, 10_000),
    gate=st.builds(Gate, st.dictionaries(names, st.floats(0, 1))),
)


@given(recipes)
def test_a_recipe_survives_json(recipe):
    assert from_plain(Recipe, json.loads(json.dumps(to_plain(recipe))), "recipe") == recipe


@pytest.mark.parametrize("name", zoo.NAMES)
def test_the_zoos_specs_survive_json(name):
    spec = zoo.spec(name)
    assert from_plain(ModelSpec, json.loads(json.dumps(to_plain(spec))), "spec") == spec


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"labels": "angry"}, "spec.labels"),
        ({"labels": [1]}, r"spec\.labels\[0\]"),
        ({"licence": None}, "spec.licence"),
        ({"task": "segmentation"}, "spec.task"),
        ({"input": {"name": "x"}}, "spec.input"),
        ({"decode": []}, "spec.decode"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_wrong_value_is_named_by_its_place(change, where):
    plain = {**to_plain(toys.SPEC), **change}
    with pytest.raises(ManifestInvalid, match=where):
        from_plain(ModelSpec, plain, "spec")


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_only_an_integer_is_an_integer(value):
    with pytest.raises(ManifestInvalid, match="calibration_items"):
        from_plain(Recipe, {**to_plain(toys.FP32), "calibration_items": value}, "recipe")


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("labels", (), "labels"),
        ("labels", ("red", "red"), "labels"),
        ("outputs", toys.SPEC.outputs[:-1], "outputs"),
        ("input", dataclasses.replace(toys.SPEC.input, dtype="float32"), "uint8"),
        ("input", dataclasses.replace(toys.SPEC.input, shape=(2, 64, 64, 3)), "uint8"),
        ("decode", dataclasses.replace(toys.SPEC.decode, bins=8), "outputs"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(field, value, match):
    with pytest.raises(ManifestInvalid, match=match):
        dataclasses.replace(toys.SPEC, **{field: value})
