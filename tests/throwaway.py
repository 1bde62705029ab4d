"""A key that signs bundles in tests where ``cryptography`` is not installed. Its secret is known: never trust it."""

from __future__ import annotations

import hashlib

from edge_sdk import ed25519
from edge_sdk.signing import PublicKey, Signature, _signed_bytes

ORDER = ed25519._ORDER


def times(scalar: int, point=ed25519._BASE):
    """A multiple of a point."""
    return ed25519._sum_of_products(scalar, point, 0, point)


class ThrowAwayKey:
    """Signs as RFC 8032, 5.1.6 says, slowly and not in constant time.

    Args:
        seed: 32 bytes, or the name of a key.
    """

    def __init__(self, seed: bytes | str) -> None:
        self.seed = hashlib.sha256(seed.encode()).digest() if isinstance(seed, str) else seed
        digest = hashlib.sha512(self.seed).digest()
        clamped = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | (1 << 254)
        self.scalar, self.prefix = clamped, digest[32:]
        name = seed if isinstance(seed, str) else ""
        self.public = PublicKey(ed25519._encoded(times(self.scalar)), name)

    def raw(self, message: bytes) -> bytes:
        """The 64 bytes over a message."""
        r = int.from_bytes(hashlib.sha512(self.prefix + message).digest(), "little") % ORDER
        shown = ed25519._encoded(times(r))
        k = int.from_bytes(hashlib.sha512(shown + self.public.value + message).digest(), "little")
        return shown + ((r + k * self.scalar) % ORDER).to_bytes(32, "little")

    def sign(self, manifest: bytes, *, release: int = 0, comment: str = "") -> Signature:
        """As ``PrivateKey.sign``."""
        made = self.raw(_signed_bytes(manifest, self.public.id, release, comment))
        return Signature("ed25519", self.public.id, release, made.hex(), comment)

    def signed(self, bundle, *, release: int = 0, comment: str = ""):
        """A bundle with this key's signature added."""
        return bundle.signed(self.sign(bundle.manifest.to_bytes(), release=release, comment=comment))
