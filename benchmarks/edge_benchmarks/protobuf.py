"""As much of protocol buffers' wire format as it takes to read and write a small ONNX graph.

A device has no ``onnx`` package, and shall not install one in order to be measured.
Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from edge_sdk.errors import InputError

Value = int | bytes
Fields = dict[int, list[Value]]


def fields(data: Value) -> Fields:
    """Field numbers to their values, in order: numbers as int, everything with a length as bytes.

    Raises:
        InputError: not a message.
    """
    assert isinstance(data, bytes)
    found: Fields = {}
    at = 0
    try:
        while at < len(data):
            key, at = _varint(data, at)
            kind, number = key & 7, key >> 3
            value: Value
            if kind == 0:
                value, at = _varint(data, at)
            elif kind == 1:
                value, at = struct.unpack_from("<Q", data, at)[0], at + 8
            elif kind == 2:
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
                if at > len(data):
                    raise IndexError
            elif kind == 5:
                value, at = struct.unpack_from("<I", data, at)[0], at + 4
            else:
                raise IndexError
            found.setdefault(number, []).append(value)
    except (IndexError, struct.error) as error:
        raise InputError("not a protocol buffer message", remedy="name an ONNX graph") from error
    return found


def one(found: Fields, number: int) -> Value:
    """The last value of a field, as protocol buffers has it; empty bytes if there is none."""
    return found.get(number, [b""])[-1]


def varints(data: bytes) -> list[int]:
    """A packed list of numbers."""
    values, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
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


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError


def _encode(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
