import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest
import toys
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk import zoo
from edge_sdk.bundle import Bundle, Manifest
from edge_sdk.errors import InputError, ManifestInvalid
from edge_sdk.schema import from_plain, json_schema, read_toml, to_plain
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


# The JSON Schema beside the reader


@pytest.fixture(scope="module")
def validator():
    jsonschema = pytest.importorskip("jsonschema", reason="the peer that reads JSON Schema")
    schema = json_schema(Manifest)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


SHIPPED = [bundle for name in zoo.NAMES for bundle in zoo.bundles(name)]


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda b: b.file)
def test_the_schema_accepts_what_the_reader_accepts(validator, shipped):
    validator.validate(json.loads(Bundle.open(shipped.path).manifest.to_bytes()))


def _places(plain, at=()):
    """Every value of a manifest with the keys that lead to it."""
    yield at, plain
    inside = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in inside:
        yield from _places(value, (*at, key))


def _changed(plain, at, change):
    """A copy with the value at a place changed, or taken out where ``change`` is None."""
    root = {"manifest": json.loads(json.dumps(plain))}
    *way, key = ("manifest", *at)
    holder = root
    for step in way:
        holder = holder[step]
    if change is None:
        del holder[key]
    else:
        holder[key] = change(holder[key])
    return root["manifest"]


def _problem(plain):
    try:
        from_plain(Manifest, plain, "manifest")
    except ManifestInvalid as error:
        return error.message
    return ""


OTHER_TYPES = {"text": "x", "integer": 7, "float": 0.5, "true": True, "null": None, "list": [], "object": {}}


@pytest.mark.parametrize("name", zoo.NAMES)
def test_the_schema_refuses_what_the_reader_refuses(validator, name):
    """Each key taken out, each object given one more, each value made one of every other type."""
    plain = json.loads(Bundle.open(zoo.bundles(name)[0].path).manifest.to_bytes())
    tried = refused = 0
    for at, value in list(_places(plain)):
        changes = [lambda _, other=other: other for other in OTHER_TYPES.values()]
        if isinstance(value, dict):
            changes.append(lambda old: {**old, "one more": 1})
        if at and isinstance(at[-1], str):
            changes.append(None)
        for change in changes:
            broken = _changed(plain, at, change)
            tried += 1
            problem = _problem(broken)
            # Values that contradict each other are the reader's alone; a type or a key is both's.
            if re.match(r"manifest\S*( has an unknown key| lacks the key|: expected)", problem):
                refused += 1
                assert not validator.is_valid(broken), (at, problem)
            elif not problem:
                assert validator.is_valid(broken), at
    assert refused > tried / 2


@pytest.mark.parametrize("text", ["a\nb", "a\n", "\x1b[2J", "\x7f", "\u2028"])
def test_the_schema_refuses_text_that_a_terminal_would_obey(validator, text):
    plain = json.loads(Bundle.open(SHIPPED[0].path).manifest.to_bytes())
    for broken in ({**plain, "producer": text}, {**plain, "fingerprint": {text: "1"}}):
        with pytest.raises(ManifestInvalid):
            from_plain(Manifest, broken, "manifest")
        assert not validator.is_valid(broken)


@dataclass(frozen=True)
class Shape:
    """An open union: what stands for it is told by its kind."""

    kind: str

    @staticmethod
    def find_alternative(kind):
        return {"circle": Circle, "square": Square}.get(kind)

    @staticmethod
    def kinds():
        return ("circle", "square")


@dataclass(frozen=True)
class Circle(Shape):
    kind: Literal["circle"]
    radius: float


@dataclass(frozen=True)
class Square(Shape):
    kind: Literal["square"]
    side: int = 1


@dataclass(frozen=True)
class Drawing:
    shape: Shape
    names: Mapping[str, int] = field(default_factory=dict)
    note: str | None = None
    final: bool = False


@pytest.mark.parametrize(
    ("plain", "good"),
    [
        ({"shape": {"kind": "circle", "radius": 1}}, True),
        ({"shape": {"kind": "square"}, "names": {"a": 1}, "note": "n", "final": True}, True),
        ({"shape": {"kind": "square", "radius": 1.0}}, False),
        ({"shape": {"kind": "circle"}}, False),
        ({"shape": {"kind": "line"}}, False),
        ({"shape": {"radius": 1.0}}, False),
        ({}, False),
        ({"shape": {"kind": "square"}, "names": {"a": "1"}}, False),
        ({"shape": {"kind": "square"}, "final": 1}, False),
        ({"shape": {"kind": "square"}, "note": 1}, False),
    ],
)
def test_alternatives_are_told_by_their_kind_in_the_schema_too(plain, good):
    jsonschema = pytest.importorskip("jsonschema")
    assert jsonschema.Draft202012Validator(json_schema(Drawing)).is_valid(plain) is good
    if good:
        from_plain(Drawing, plain, "drawing")
    else:
        with pytest.raises(ManifestInvalid):
            from_plain(Drawing, plain, "drawing")


@pytest.mark.parametrize("value", [1.0, True, "1"])
def test_a_literal_is_held_to_its_type(value):
    plain = json.loads(Bundle.open(SHIPPED[0].path).manifest.to_bytes())
    with pytest.raises(ManifestInvalid, match=r"manifest\.schema"):
        from_plain(Manifest, {**plain, "schema": value}, "manifest")


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = '" + "x" * 2**20 + "'"], ids=["deep", "large"])
def test_a_toml_file_that_is_too_deep_or_too_large_is_an_input_error(tmp_path, text):
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.toml"):
        read_toml(path)
