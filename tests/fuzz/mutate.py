"""Mutations for where atheris cannot be installed, and for the short run in the tests: seeded, so repeatable."""

from __future__ import annotations

import random

TOKENS = (
    b"null", b"true", b"1e999", b"-1", b"NaN", b"1" + b"0" * 400, b"[" * 2000, b'{"a":' * 500, b"\x00", b"\xff\xfe",
    b'"\\ud800"', b"../..", b"\x1b[2J", b"\n", b'"kind"', b'"labels"', b"99999999999999999999", b"0x", b"'" * 3, b"''",
    b"-0.0", b"[[", b"]]", b"=", b"inf", b"nan", b"2000-01-01", b"\\u0000",
)  # fmt: skip
"""Words that parsers stumble over."""


def mutated(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to eight changes of a seed."""
    made = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        at = rng.randrange(len(made) + 1)
        kind = rng.randrange(8)
        if kind == 0 and made:
            made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
        elif kind == 1 and made:
            made[rng.randrange(len(made))] = rng.randrange(256)
        elif kind == 2:
            del made[at : at + rng.randrange(1, 40)]
        elif kind == 3:
            made[at:at] = rng.choice(TOKENS)
        elif kind == 4:
            end = at + rng.randrange(1, 60)
            made[at:at] = made[at:end]
        elif kind == 5:
            made[at : at + rng.randrange(1, 8)] = rng.choice(TOKENS)
        elif kind == 6:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            made[at:at] = other[start : start + rng.randrange(1, 80)]
        else:
            digits = [i for i, c in enumerate(made) if 48 <= c <= 57]
            if digits:
                made[rng.choice(digits)] = rng.choice(b"0123456789-.e")
    return bytes(made)
