"""As much of protocol buffers' wire format as it takes to read any ONNX graph and to write a small one.

A device has no ``onnx`` package, and shall not install one in order to check a file or to be measured.
Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edge_sdk.errors import InputError

Value = int | bytes
Fields = dict[int, list[Value]]
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types."""


def entries(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields of the message that lies between two offsets, in order; nothing is copied.

    Yields:
        Field number, wire type, and two numbers: the value and the offset behind it for wire types with a number; where
        the content begins and ends for :data:`LENGTH`.

    Raises:
        InputError: not a message: cut off, a field number beyond 32 bits with its type, or a group, which ONNX has not.
    """
    at = start
    while at < end:
        # Nearly every key and length is one byte.
        key = data[at]
        at += 1
        if key > 0x7F:
            key, at = _varint(data, at - 1, end)
        kind, number = key & 7, key >> 3
        if kind == LENGTH:
            size, at = _varint(data, at, end)
            value, after = at, at + size
        elif kind == VARINT:
            value, after = _varint(data, at, end)
        elif kind in (FIXED64, FIXED32):
            after = at + (8 if kind == FIXED64 else 4)
            value = int.from_bytes(data[at:after], "little")
        else:
            raise _not_a_message()
        # Readers disagree on what a longer key means, so there shall be none.
        if after > end or not 0 < key <= 0xFFFFFFFF or not number:
            raise _not_a_message()
        yield number, kind, value, after
        at = after


def fields(data: Value) -> Fields:
    """Field numbers to their values, in order: numbers as int, everything with a length as bytes.

    Raises:
        InputError: not a message.
    """
    assert isinstance(data, bytes)
    found: Fields = {}
    for number, kind, value, after in entries(data, 0, len(data)):
        found.setdefault(number, []).append(data[value:after] if kind == LENGTH else value)
    return found


def one(found: Fields, number: int) -> Value:
    """The last value of a field, as protocol buffers has it; empty bytes if there is none."""
    return found.get(number, [b""])[-1]


def varints(data: bytes) -> list[int]:
    """A packed list of numbers."""
    values, at = [], 0
    while at < len(data):
        value, at = _varint(data, at, len(data))
        values.append(value)
    return values


def message(number: int, data: bytes) -> bytes:
    """A field that holds a message, a string or bytes."""
    return _encode(number << 3 | 2) + _encode(len(data)) + data


def text(number: int, value: str) -> bytes:
    """A field that holds a string."""
    return message(number, value.encode())


def integer(number: int, *values: int) -> bytes:
    """A field that holds numbers, one after the other."""
    return b"".join(_encode(number << 3) + _encode(value) for value in values)


def join(parts: Iterable[bytes]) -> bytes:
    """Fields to a message."""
    return b"".join(parts)


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _not_a_message()


def _not_a_message() -> InputError:
    return InputError("not a protocol buffer message", remedy="name an ONNX graph")


def _encode(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
