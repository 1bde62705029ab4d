"""Frozen dataclasses to plain JSON values and back, strictly: no unknown key, no missing key, no other type.

A file from somebody else is checked here before anything else looks at it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from edge_sdk.errors import InputError, ManifestInvalid, MissingDependency
from edge_sdk.files import read_file

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Dataclasses, mappings and tuples to dicts and lists; everything else as it is.

    A field that has its plain default is left out, so that what was written before the field existed stays the same
    bytes. A field with a ``default_factory`` is always written.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: to_plain(item)
            for f in dataclasses.fields(value)
            if (item := getattr(value, f.name)) != f.default
        }
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return value


def from_plain(cls: type[T], value: object, where: str) -> T:
    """Build a dataclass from plain values.

    Args:
        cls: a dataclass whose fields are str, int, float, bool, None, Literal, tuple, Mapping[str, ...] or dataclasses.
            One that has ``find_alternative(kind)`` and ``kinds()`` stands for its subclasses, which the key ``kind``
            of a value tells apart.
        value: what JSON or TOML gave.
        where: name of the value, for messages, such as ``"manifest.spec"``.

    Raises:
        ManifestInvalid: an unknown or missing key, or a value of another type.
    """
    built: T = _build(cls, value, where)
    return built


def json_schema(cls: type[Any]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what ``from_plain`` reads for a dataclass.

    The reader refuses more: numbers with a fraction of zero where an integer stands, characters that do not print, and
    values that contradict each other (a dataclass's ``__post_init__``).

    Args:
        cls: a dataclass with the kinds of fields that ``from_plain`` reads.

    Returns:
        JSON values; dataclasses below ``cls`` stand in ``$defs`` by their names.
    """
    definitions: dict[str, Any] = {"text": _TEXT}
    schema = _object_schema(cls, definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "$defs": definitions}


_TEXT = {
    "description": "printable text on one line",
    "type": "string",
    "not": {"pattern": "[\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]"},
}


def _object_schema(cls: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    properties: dict[str, Any] = {}
    required = []
    for field in dataclasses.fields(cls):
        properties[field.name] = _value_schema(hints[field.name], definitions)
        if field.default is not dataclasses.MISSING:
            properties[field.name] = {**properties[field.name], "default": to_plain(field.default)}
        elif field.default_factory is dataclasses.MISSING:
            required.append(field.name)
    said = (cls.__doc__ or "").strip().splitlines()[:1]
    return {
        **({"description": said[0]} if said else {}),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _value_schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        name = getattr(kind, "__name__", str(kind))
        union: Any = kind
        if hasattr(union, "find_alternative") and typing.get_type_hints(union)["kind"] is str:
            # Of a union that is open, the alternatives that are installed here.
            found = [union.find_alternative(k) for k in union.kinds()]
            return {"oneOf": [_value_schema(a, definitions) for a in found]}
        if name not in definitions:
            definitions[name] = {}  # one that holds itself finds its name here
            definitions[name] = _object_schema(kind, definitions)
        return {"$ref": f"#/$defs/{name}"}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_value_schema(a, definitions) for a in arguments]}
    if origin is typing.Literal:
        return {"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _value_schema(arguments[0], definitions)}
    if origin is not None and issubclass(origin, Mapping):
        names = {"$ref": "#/$defs/text"}
        return {
            "type": "object",
            "propertyNames": names,
            "additionalProperties": _value_schema(arguments[1], definitions),
        }
    if kind is str:
        return {"$ref": "#/$defs/text"}
    return {"type": _JSON_TYPES[kind]}


_JSON_TYPES = {int: "integer", float: "number", bool: "boolean", type(None): "null"}


MAX_JSON_BYTES = 64 * 2**20
MAX_TOML_BYTES = 2**20


def read_json(path: str | Path, what: str, *, limit: int = MAX_JSON_BYTES) -> Any:
    """Parse a JSON file.

    Args:
        path: of the file.
        what: it is, for messages, such as ``"report"``.
        limit: bytes that it may have.

    Raises:
        InputError: the file cannot be read, is too large, or is not JSON that a reader can hold.
    """
    data = read_file(path, limit=limit, what=what)
    try:
        return json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(
            f"{path} is not a {what}: {said}", remedy=f"name a {what} that this SDK wrote"
        ) from error


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file: a recipe or a profile.

    Raises:
        InputError: the file cannot be read or is not TOML.
        MissingDependency: Python 3.10 without tomli.
    """
    try:
        text = read_file(path, limit=MAX_TOML_BYTES, what="file").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {path}: {error}", remedy="mend the file") from error
    return parse_toml(text, path)


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """Parse the text of a TOML file that was read.

    Args:
        text: of the file.
        path: for messages.

    Raises:
        InputError: it is not TOML.
        MissingDependency: Python 3.10 without tomli.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise MissingDependency("tomli is not installed", remedy="pip install tomli") from error
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {error}", remedy="mend the file") from error


def _build(kind: Any, value: object, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        alternative = _alternative(kind, value, where) if hasattr(kind, "find_alternative") else kind
        return _build_dataclass(alternative, value, where)
    # Of something and None: other unions are dataclasses with kinds.
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _build(next(a for a in arguments if a is not type(None)), value, where)
    if origin is typing.Literal:
        # 1.0 and True equal 1 to Python, but are no 1 to a reader of the manifest.
        if not any(type(value) is type(argument) and value == argument for argument in arguments):
            _refuse(where, "one of " + ", ".join(map(repr, arguments)), value)
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            _refuse(where, "a list", value)
        return tuple(_build(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(k, str) and k.isprintable() for k in value):
            _refuse(where, "an object", value)
        return {k: _build(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # an integer beyond all floats
            number = math.inf
        if not math.isfinite(number):
            _refuse(where, "a finite number", value)
        return number
    # bool is an int to Python, but not to a reader of the manifest.
    if type(value) is not kind:
        _refuse(where, getattr(kind, "__name__", str(kind)), value)
    # Text is shown to people: a terminal must not obey it, and an encoder must be able to write it.
    if kind is str and not str(value).isprintable():
        _refuse(where, "printable text on one line", value)
    return value


def _alternative(base: Any, value: object, where: str) -> Any:
    """The subclass whose ``kind`` the value names, where a dataclass stands for several: an open tagged union."""
    kind = value.get("kind") if isinstance(value, Mapping) else None
    found = base.find_alternative(kind) if isinstance(kind, str) else None
    if found is None:
        remedy = "build it again, or install the package that brings this kind"
        _refuse(f"{where}.kind", "one of " + ", ".join(map(repr, base.kinds())), kind, remedy)
    return found


def _build_dataclass(cls: Any, value: object, where: str) -> Any:
    if not isinstance(value, Mapping):
        _refuse(where, "an object", value)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := sorted(set(map(str, value)) - set(fields)):
        raise ManifestInvalid(
            f"{where} has an unknown key {unknown[0]!r}",
            remedy="it was written by another version: install the version that wrote it, or build again",
        )
    built = {}
    for name, field in fields.items():
        if name in value:
            built[name] = _build(hints[name], value[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ManifestInvalid(f"{where} lacks the key {name!r}", remedy="build it again")
    return cls(**built)


def _refuse(where: str, expected: str, value: object, remedy: str = "build it again") -> typing.NoReturn:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    raise ManifestInvalid(f"{where}: expected {expected}, got {shown}", remedy=remedy)
