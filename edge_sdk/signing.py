"""Signatures: who vouches for a bundle's manifest, and by its hashes for every file.

``docs/signing.md`` is the text for users, ``docs/bundle.md`` the normative one for the member ``manifest.sig``. Checking
needs nothing that is not installed (:mod:`edge_sdk.ed25519`); making keys and signatures needs ``cryptography``.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from edge_sdk import ed25519
from edge_sdk.errors import InputError, ManifestInvalid, MissingDependency, SignatureInvalid
from edge_sdk.files import read_small_file
from edge_sdk.schema import from_plain, to_plain

MAX_SIGNATURES: Final = 8
MAX_MEMBER_BYTES: Final = 32 * 2**10
MAX_COMMENT: Final = 200
MAX_RELEASE: Final = 2**53 - 1
"""The largest integer that every reader of JSON keeps."""

_DOMAIN = b"face-edge-sdk bundle signature 1\n"
"""Begins what is signed: a signature made for anything else fits no bundle."""
_MAX_KEY_FILE = 4096
_HEX_KEY, _HEX_SIGNATURE = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{128}")
_PEM = re.compile(
    rb"\s*-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]{1,200}?)\s*-----END PUBLIC KEY-----\s*"
)
_DER = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410)."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key by which signatures are checked.

    Attributes:
        value: 32 bytes of Ed25519.
        name: for people; two keys of the same value are the same key whatever they are called.

    Raises:
        InputError: the bytes are no key that could have been made in earnest.
    """

    value: bytes
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Refuse bytes that are no key."""
        if not ed25519.is_key(self.value):
            raise InputError(
                f"{self.value.hex() or 'nothing'} is no Ed25519 public key",
                remedy="copy it again from the file that edge-sdk keygen wrote",
            )

    @property
    def id(self) -> str:
        """The value as 64 lower-case hexadecimal digits, as it stands in signatures and policies."""
        return self.value.hex()

    @property
    def shown(self) -> str:
        """Its name and the first digits of its id, for a line of text."""
        return f"{self.name} ({self.id[:16]})" if self.name else self.id[:16]

    @classmethod
    def from_hex(cls, text: str, name: str = "") -> PublicKey:
        """The key of 64 lower-case hexadecimal digits.

        Raises:
            InputError: other text, or no key.
        """
        if not _HEX_KEY.fullmatch(text):
            raise InputError(
                f"{text[:80]!r} is no public key: expected 64 lower-case hexadecimal digits",
                remedy="copy the line that edge-sdk keygen printed",
            )
        return cls(bytes.fromhex(text), name)

    @classmethod
    def read(cls, path: str | Path) -> PublicKey:
        """The key of a PEM file, as ``edge-sdk keygen`` and ``openssl pkey -pubout`` write it; named after the file.

        Raises:
            InputError: the file cannot be read or holds no Ed25519 public key.
        """
        path = Path(path)
        found = _PEM.fullmatch(read_small_file(path, _MAX_KEY_FILE))
        try:
            der = base64.b64decode(b"".join(found[1].split()), validate=True) if found else b""
        except binascii.Error:
            der = b""
        if not der.startswith(_DER) or len(der) != len(_DER) + ed25519.KEY_BYTES:
            raise InputError(
                f"{path} holds no Ed25519 public key in PEM form",
                remedy="name the .pub file that edge-sdk keygen wrote",
            )
        return cls(der[len(_DER) :], path.stem if path.stem.isprintable() else "")

    def to_pem(self) -> bytes:
        """The file's content."""
        text = base64.b64encode(_DER + self.value).decode("ascii")
        return f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n".encode("ascii")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of a manifest. Everything in it is covered by the signature itself.

    Attributes:
        algorithm: the only one of format 1.
        key: id of the key that signed.
        release: number of the bundle among those of its model's name; a policy can ask for a lowest one.
        signature: 128 lower-case hexadecimal digits.
        comment: for people.
    """

    algorithm: Literal["ed25519"]
    key: str
    release: int
    signature: str
    comment: str = ""

    def __post_init__(self) -> None:
        """Refuse what the format does not allow (SignatureInvalid)."""
        for wrong, what in (
            (not _HEX_KEY.fullmatch(self.key), "a key that is not 64 lower-case hexadecimal digits"),
            (not _HEX_SIGNATURE.fullmatch(self.signature), "a value that is not 128 such digits"),
            (not 0 <= self.release <= MAX_RELEASE, f"a release outside 0 .. {MAX_RELEASE}"),
            (len(self.comment) > MAX_COMMENT, f"a comment of more than {MAX_COMMENT} characters"),
        ):
            if wrong:
                raise SignatureInvalid(f"a signature has {what}", remedy="sign the bundle again")

    def fits(self, manifest: bytes) -> bool:
        """Whether its key signed exactly these bytes of ``manifest.json``, this release and this comment."""
        message = _signed_bytes(manifest, self.key, self.release, self.comment)
        return ed25519.verify(bytes.fromhex(self.key), message, bytes.fromhex(self.signature))


@dataclass(frozen=True, slots=True)
class _Member:
    signatures: tuple[Signature, ...]


def to_member(signatures: Iterable[Signature]) -> bytes:
    """Content of ``manifest.sig``: canonical JSON, sorted by key.

    Raises:
        SignatureInvalid: none or too many, or two by one key.
    """
    ordered = tuple(sorted(signatures, key=lambda s: s.key))
    if not 1 <= len({s.key for s in ordered}) == len(ordered) <= MAX_SIGNATURES:
        raise SignatureInvalid(
            f"{len(ordered)} signatures of {len({s.key for s in ordered})} keys: "
            f"expected 1 to {MAX_SIGNATURES}, each of another key",
            remedy="sign the bundle as it was built again",
        )
    text = json.dumps(to_plain(_Member(ordered)), indent=2, sort_keys=True, ensure_ascii=True)
    return text.encode("ascii") + b"\n"


def from_member(data: bytes) -> tuple[Signature, ...]:
    """The signatures of ``manifest.sig``; whether they fit is another question (:meth:`Signature.fits`).

    Raises:
        SignatureInvalid: it is not written as the format prescribes.
    """
    remedy = "fetch the bundle again, or sign it again"
    if len(data) > MAX_MEMBER_BYTES:
        raise SignatureInvalid(
            f"manifest.sig has {len(data):,} bytes, expected at most {MAX_MEMBER_BYTES:,}", remedy=remedy
        )
    try:
        signatures = from_plain(_Member, json.loads(data.decode("ascii")), "manifest.sig").signatures
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise SignatureInvalid(f"manifest.sig is not JSON: {error}", remedy=remedy) from error
    except ManifestInvalid as error:
        raise SignatureInvalid(error.message, remedy=remedy) from error
    if to_member(signatures) != data:  # a key that occurs twice, too
        raise SignatureInvalid("manifest.sig is not written the way format 1 prescribes", remedy=remedy)
    return signatures


class PrivateKey:
    """A key that signs. It is never shown, and written only by :meth:`write`.

    Args:
        key: ``Ed25519PrivateKey`` of the package ``cryptography``.
    """

    def __init__(self, key: Any) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new key from the system's random numbers.

        Raises:
            MissingDependency: ``cryptography`` is not installed.
        """
        keys, _ = _cryptography()
        return cls(keys.Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: str | Path) -> PrivateKey:
        """The key of a PEM file (PKCS #8, not encrypted), which nobody else may be able to read.

        Raises:
            InputError: it cannot be read, others can read it too, or it holds no such key.
            MissingDependency: ``cryptography`` is not installed.
        """
        path = Path(path)
        keys, serialization = _cryptography()
        from cryptography.exceptions import UnsupportedAlgorithm

        data = read_small_file(path, _MAX_KEY_FILE, private=True)
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None  # the error's text is not shown: it may quote what was read
        if not isinstance(key, keys.Ed25519PrivateKey):
            raise InputError(
                f"{path} holds no Ed25519 private key in PEM form without a passphrase",
                remedy="name the .key file that edge-sdk keygen wrote",
            )
        return cls(key)

    @property
    def public(self) -> PublicKey:
        """The key by which others check."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, manifest: bytes, *, release: int, comment: str = "") -> Signature:
        """Sign a manifest.

        Args:
            manifest: exact bytes of ``manifest.json``.
            release: number of the bundle among those of its model's name, 0 or more.
            comment: printable text on one line.

        Raises:
            InputError: such a release or comment is not allowed.
        """
        if not (0 <= release <= MAX_RELEASE and len(comment) <= MAX_COMMENT and comment.isprintable()):
            raise InputError(
                f"release {release} with a comment of {len(comment)} characters cannot be signed",
                remedy=f"0 to {MAX_RELEASE}, and at most {MAX_COMMENT} printable characters on one line",
            )
        key = self.public.id
        made = self._key.sign(_signed_bytes(manifest, key, release, comment))
        return Signature("ed25519", key, release, made.hex(), comment)

    def write(self, path: str | Path) -> PublicKey:
        """Write ``PATH.key``, which this user alone may read, and ``PATH.pub`` beside it; neither over an older file.

        Returns:
            The public key, named as in its file.

        Raises:
            InputError: one of the files is there, or cannot be written.
        """
        private, public = Path(f"{path}.key"), Path(f"{path}.pub")
        _, forms = _cryptography()
        pem = self._key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
        shared = self.public.to_pem()
        _write_new(public, shared, 0o644)
        try:
            _write_new(private, pem, 0o600)
        except BaseException:
            public.unlink(missing_ok=True)
            raise
        return PublicKey.read(public)


def _signed_bytes(manifest: bytes, key: str, release: int, comment: str) -> bytes:
    """What a signature is over: the purpose, one line of JSON with everything else that it says, the manifest."""
    said = {"algorithm": "ed25519", "comment": comment, "key": key, "release": release}
    line = json.dumps(said, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return _DOMAIN + line.encode("ascii") + b"\n" + manifest


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot make {path}: {getattr(error, 'strerror', None) or error}",
            remedy="choose another name: a key is never written over another file",
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(
                f"cannot write {path}: {error.strerror or error}", remedy="choose a folder with space"
            ) from error
        raise


def _cryptography() -> tuple[Any, Any]:
    """Its modules ``ed25519`` and ``serialization``."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519 as keys
    except ImportError as error:
        raise MissingDependency(
            "cryptography is not installed; keys and signatures are made with it, checking needs nothing",
            remedy="pip install 'face-edge-sdk[signing]'",
        ) from error
    return keys, serialization
