import json
from dataclasses import dataclass

import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk import zoo
from edge_sdk.errors import InputError, ManifestInvalid
from edge_sdk.schema import from_plain, read_toml, to_plain
from edge_sdk.spec import Gate, ModelSpec, Recipe

HEAD = to_plain(toys.SPEC.head)
names = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=12)
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
        ({"head": {**HEAD, "labels": "angry"}}, "spec.head.labels"),
        ({"head": {**HEAD, "labels": [1]}}, r"spec\.head\.labels\[0\]"),
        ({"head": {**HEAD, "kind": "segmentation"}}, "spec.head.kind: expected one of 'classification'"),
        ({"head": {**HEAD, "kind": "base"}}, "spec.head.kind"),
        ({"head": {**HEAD, "kind": ["detection"]}}, "spec.head.kind"),
        ({"head": {**HEAD, "threshold": 0.5}}, "spec.head has an unknown key 'threshold'"),
        ({"head": []}, "spec.head"),
        ({"licence": None}, "spec.licence"),
        ({"inputs": {"name": "x"}}, "spec.inputs"),
        ({"inputs": [{"name": "x"}]}, r"spec\.inputs\[0\]"),
        ({"state": [{"input": "x"}]}, r"spec\.state\[0\]"),
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


@dataclass(frozen=True)
class Box:
    size: float
    items: tuple[int, ...] = ()
    note: str | None = None


def test_a_whole_number_is_a_float_and_comes_back_as_one():
    assert isinstance(from_plain(Box, {"size": 2}, "box").size, float)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), True, "1", None, [], 10**400],
    ids=lambda v: str(v)[:9],
)
def test_only_a_finite_number_is_a_float(value):
    with pytest.raises(ManifestInvalid, match=r"box\.size"):
        from_plain(Box, {"size": value}, "box")


def test_a_key_with_a_default_may_be_left_out_and_none_stands_only_where_it_may():
    assert from_plain(Box, {"size": 1, "note": None}, "box") == Box(1.0)
    with pytest.raises(ManifestInvalid, match=r"box\.items"):
        from_plain(Box, {"size": 1, "items": None}, "box")
    with pytest.raises(ManifestInvalid, match=r"box\.items\[1\]"):
        from_plain(Box, {"size": 1, "items": [1, None]}, "box")


@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_what_is_no_object_is_refused(value):
    with pytest.raises(ManifestInvalid, match="box: expected an object"):
        from_plain(Box, value, "box")


def test_a_long_value_is_shortened_in_the_message():
    with pytest.raises(ManifestInvalid) as caught:
        from_plain(Box, {"size": "x" * 10_000}, "box")
    assert len(caught.value.message) < 120


@pytest.mark.parametrize("text", [None, b"\xff", b"a = ", b"a = 1\na = 2"])
def test_toml_that_cannot_be_read_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "x.toml").write_bytes(text)
    with pytest.raises(InputError, match=r"x\.toml"):
        read_toml(tmp_path / "x.toml")
