"""Whether a ``model.tflite`` is whole in itself, of built-in operators, read without a flatbuffers package.

Schema: https://github.com/google-ai-edge/LiteRT/blob/main/tflite/converter/schema/schema.fbs
Format: https://flatbuffers.dev/internals/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_IDENTIFIER = b"TFL3"
# Offsets of fields in a table's list of fields, which never change: 4 for the first, 2 more for each other.
_OPERATOR_CODES, _SUBGRAPHS, _BUFFERS, _EXTERNAL_GROUPS, _EXTERNAL_BUFFERS = 6, 8, 12, 20, 22
_OLD_CODE, _CUSTOM_NAME, _CODE = 4, 6, 10
_BUFFER_OFFSET, _BUFFER_SIZE = 6, 8
_TENSORS, _OPERATORS, _EXTERNAL_BUFFER = 4, 10, 24
_OPTIONS_OFFSET, _OPTIONS_SIZE = 22, 24
_NOT_BUILT_IN = {32: "CUSTOM", 51: "DELEGATE", 173: "STABLEHLO_CUSTOM_CALL"}
"""Codes of operators that belong to libraries; all others that an interpreter knows are its own."""
_LAST_CODE = 0xFFF
"""Beyond it lie no operators but negative numbers; the newest schema ends at 209."""
MAX_PARTS = 5_000_000
"""Tensors and buffers; a detector has 3,000."""


def problem(data: bytes) -> str | None:
    """What keeps a file from being used, in words: data elsewhere, a custom operator, or not TFLite; else None."""
    if data[4:8] != _IDENTIFIER:
        return "the file is not TFLite"
    try:
        model = _Table(data, _number(data, 0, 4))
        for code in model.tables(_OPERATOR_CODES):
            # An interpreter takes the larger of the two, with signs; no file has reason to name a foreign one in either.
            for kind in (code.number(_OLD_CODE, 1), code.number(_CODE, 4)):
                if kind in _NOT_BUILT_IN or kind > _LAST_CODE or code.has(_CUSTOM_NAME):
                    return f"operator {code.text(_CUSTOM_NAME) or _NOT_BUILT_IN.get(kind, kind)!r} is custom"
        if model.has(_EXTERNAL_GROUPS) or model.has(_EXTERNAL_BUFFERS):
            return "weights lie in another file"
        for buffer in model.tables(_BUFFERS):
            # Behind the tables, as converters of large networks put it: in the file all the same.
            if buffer.number(_BUFFER_OFFSET, 8) + buffer.number(_BUFFER_SIZE, 8) > len(data):
                return "a buffer lies beyond the end of the file"
        for graph in model.tables(_SUBGRAPHS):
            if any(tensor.number(_EXTERNAL_BUFFER, 4) for tensor in graph.tables(_TENSORS)):
                return "a tensor lies in another file"
            for operator in graph.tables(_OPERATORS):
                if operator.number(_OPTIONS_OFFSET, 8) + operator.number(_OPTIONS_SIZE, 8) > len(data):
                    return "an operator's options lie beyond the end of the file"
    except (struct.error, IndexError, OverflowError) as error:
        return f"the file is damaged: {error}"
    return None


class _Table:
    """A table of a flatbuffer.

    Args:
        data: the file.
        at: where it begins.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        (back,) = struct.unpack_from("<i", data, at)
        self._list = at - back
        if not 0 <= self._list < len(data):
            raise IndexError("a table lies outside")
        self._size = _number(data, self._list, 2)

    def _place(self, field: int) -> int:
        """Where a field lies; 0 where the table has none."""
        offset = _number(self._data, self._list + field, 2) if field < self._size else 0
        return self._at + offset if offset else 0

    def has(self, field: int) -> bool:
        """Whether a field is there."""
        return self._place(field) != 0

    def number(self, field: int, size: int) -> int:
        """A field of some bytes as a number without sign; 0 if it is not there."""
        place = self._place(field)
        return _number(self._data, place, size) if place else 0

    def text(self, field: int) -> str:
        """A field that holds a string."""
        if not (place := self._place(field)):
            return ""
        start = place + _number(self._data, place, 4)
        return self._data[start + 4 : start + 4 + _number(self._data, start, 4)].decode(errors="replace")

    def tables(self, field: int) -> Iterator[_Table]:
        """A field that holds a list of tables."""
        if place := self._place(field):
            start = place + _number(self._data, place, 4)
            count = _number(self._data, start, 4)
            if count > MAX_PARTS:
                raise OverflowError(f"{count:,} parts")
            for at in range(start + 4, start + 4 + 4 * count, 4):
                yield _Table(self._data, at + _number(self._data, at, 4))


def _number(data: bytes, at: int, size: int) -> int:
    if at < 0 or at + size > len(data):
        raise IndexError("it is cut off")
    return int.from_bytes(data[at : at + size], "little")
