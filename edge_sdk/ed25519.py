"""Ed25519 signatures checked in plain Python, so that a device can do it with nothing installed.

Written from RFC 8032, section 5.1. Only verification is here: it handles public values alone, so it may take a time that
depends on them. A private key needs code whose time does not; making keys and signatures is left to the package
``cryptography`` (:mod:`edge_sdk.signing`).

Where the RFC leaves a choice the strict one is taken, so that no second form of a signature passes and no key signs
everything: ``S`` below the group's order, canonical encodings only, no point of small order as key or as ``R``, and the
equation without the cofactor. OpenSSL's answer differs for the keys of small order and the encodings that are refused
here; for a key that anybody made in earnest the two are the same.
"""

from __future__ import annotations

import hashlib

KEY_BYTES, SIGNATURE_BYTES = 32, 64

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = 37095705934669439343138083508754565189542113879843219016388785533085940283555
_ROOT = 19681161376707505956807079304988542015446066515923890162744021073123829784752
"""The field's prime, the order of the base point, the curve's constant d, and a square root of -1."""

_Point = tuple[int, int, int, int]
"""Extended coordinates (X, Y, Z, T): x = X / Z, y = Y / Z, x * y = T / Z."""
_NEUTRAL: _Point = (0, 1, 1, 0)
_BASE: _Point = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    46316835694926478169428394003475163141307993866256225615783033603165251855960,
    1,
    46827403850823179245072216630277197565144205554125654976674165829533817101731,
)


def is_key(key: bytes) -> bool:
    """Whether these bytes are a public key: 32 of them, canonical, a point of the curve, not of small order."""
    return _point(key) is not None


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature of a message is by the holder of a key.

    Args:
        key: 32 bytes.
        message: of any length.
        signature: 64 bytes, R and S.

    Returns:
        False for everything else, also for bytes that are no key or no signature; nothing is raised.
    """
    point = _point(key)
    if point is None or len(signature) != SIGNATURE_BYTES:
        return False
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    if s >= _ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % _ORDER
    x, y, z, t = point
    found = _sum_of_products(s, _BASE, k, (_P - x, y, z, _P - t))
    # Compared as bytes: an R in another encoding of the same point does not pass.
    return not _is_small(found) and _encoded(found) == r


def _point(data: bytes) -> _Point | None:
    """A key's point (RFC 8032, 5.1.3), or None."""
    if len(data) != KEY_BYTES:
        return None
    number = int.from_bytes(data, "little")
    y, odd = number & (2**255 - 1), number >> 255
    if y >= _P:
        return None
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if (v * x * x - u) % _P:
        x = x * _ROOT % _P
    if (v * x * x - u) % _P or (x == 0 and odd):
        return None
    if x & 1 != odd:
        x = _P - x
    point = (x, y, 1, x * y % _P)
    return None if _is_small(point) else point


def _encoded(point: _Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, _P)
    x, y = x * inverse % _P, y * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _is_small(point: _Point) -> bool:
    """Whether eight times the point is the neutral one."""
    x, y, z, _ = _doubled(_doubled(_doubled(point)))
    return x == 0 and (y - z) % _P == 0


def _sum_of_products(a: int, one: _Point, b: int, other: _Point) -> _Point:
    """``a * one + b * other``, bit by bit for both at once (Straus)."""
    both, total = _added(one, other), _NEUTRAL
    for bit in range(max(a.bit_length(), b.bit_length()) - 1, -1, -1):
        total = _doubled(total)
        in_a, in_b = a >> bit & 1, b >> bit & 1
        if in_a or in_b:
            total = _added(total, both if in_a and in_b else one if in_a else other)
    return total


def _added(p: _Point, q: _Point) -> _Point:
    """RFC 8032, 5.1.4; complete: it holds for equal and neutral points too."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % _P, (p[1] + p[0]) * (q[1] + q[0]) % _P
    c, d = 2 * _D * p[3] * q[3] % _P, 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _doubled(p: _Point) -> _Point:
    a, b, c = p[0] * p[0] % _P, p[1] * p[1] % _P, 2 * p[2] * p[2] % _P
    h, g = a + b, a - b
    e, f = h - (p[0] + p[1]) ** 2 % _P, c + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P
