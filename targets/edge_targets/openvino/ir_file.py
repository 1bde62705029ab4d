"""Whether a ``model.xml`` is OpenVINO's own IR of its own operators, and nothing that another of its readers would take.

OpenVINO asks all its readers (ONNX, TensorFlow, TFLite, Paddle, GGUF) who knows a file, whatever its name, and some of
them follow names to other files. IR holds its weights by offsets into the bytes that it is given.
"""

from __future__ import annotations

import re
from xml.parsers import expat

_HEADS = (b"<?xml version=", b"<net ")
"""How IR begins: text that no other reader takes for its own."""
_OPERATORS = re.compile(r"opset[0-9]{1,2}")
"""Sets of OpenVINO's operators; anything else belongs to an extension, which is a library."""
_WEIGHTS = "__weights_path"
"""Entry by which OpenVINO remembers the file that weights came from, to read them again."""
MAX_ELEMENTS = 5_000_000
"""A detector has 30,000."""


class _Refused(Exception):  # never leaves this module
    pass


def problem(xml: bytes) -> str | None:
    """What keeps a file from being used, in words: not IR, or an operator of an extension; else None."""
    if not xml.startswith(_HEADS):
        return "the file is not OpenVINO's IR"
    count = 0

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count == 1 and name != "net":
            raise _Refused(f"the file is not OpenVINO's IR: it begins with <{name}>")
        if count > MAX_ELEMENTS:
            raise _Refused(f"the file has more than {MAX_ELEMENTS:,} parts")
        if name == "layer" and not _OPERATORS.fullmatch(attributes.get("version", "")):
            kind, version = attributes.get("type", ""), attributes.get("version", "")
            raise _Refused(f"operator {version}.{kind} is none of OpenVINO's own")
        if name == _WEIGHTS:
            raise _Refused("the file names weights in another file")

    def refuse(*_: object) -> None:
        raise _Refused("the file has a document type, which IR has not")

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(xml, True)
    except _Refused as refused:
        return str(refused)
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        return f"the file is not OpenVINO's IR: {error}"
    return None
