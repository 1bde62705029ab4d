"""Trust: whose bundles this device loads.

A policy says which keys must have signed a bundle of a model's name. Three may apply to one load: the device's own
file, the file that ``$EDGE_SDK_POLICY`` names, and what the caller asks for. Each that is there must be content:
one may add to another, never lift it. Where there is none, every bundle that is whole loads. ``docs/signing.md`` is
the text for users.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

from edge_sdk import zoo
from edge_sdk.bundle import Bundle
from edge_sdk.errors import InputError, ManifestInvalid, MissingDependency, SignatureInvalid
from edge_sdk.files import read_small_file, refuse_if_others_write
from edge_sdk.schema import from_plain, parse_toml
from edge_sdk.signing import PublicKey, Signature

POLICY_VARIABLE = "EDGE_SDK_POLICY"
"""Environment variable that names a policy file."""
DEVICE_POLICY = Path("/etc/face-edge-sdk/policy.toml")

_MAX_POLICY_BYTES = 256 * 2**10
_MEND = "mend the policy: docs/signing.md has its form"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a bundle of certain models must have.

    Attributes:
        models: patterns of model names as in a shell, such as ``"fer-*"``.
        keys: names of the keys of which one must have signed.
        min_release: a lower release number in that signature is refused, so that an older bundle cannot come back.
        unsigned: no signature is asked for; then there are no ``keys``.
    """

    models: tuple[str, ...]
    keys: tuple[str, ...] = ()
    min_release: int = 0
    unsigned: bool = False


@dataclass(frozen=True, slots=True)
class Revoked:
    """What is no longer trusted.

    Attributes:
        keys: ids of keys (64 hexadecimal digits): their signatures count as none.
        bundles: identities of bundles (``edge-sdk inspect`` shows them): refused whoever signed them.
    """

    keys: tuple[str, ...] = ()
    bundles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """Which keys must have signed which models.

    Attributes:
        schema: version of the form.
        keys: name to id of each key (64 hexadecimal digits).
        rules: the first that has a pattern for a model's name decides; a model for which there is none is refused.
        revoked: what is no longer trusted.
        source: where it came from, for messages.

    Raises:
        InputError: its parts contradict each other, or a key is none.
    """

    schema: Literal[1]
    keys: Mapping[str, str]
    rules: tuple[Rule, ...]
    revoked: Revoked = field(default_factory=Revoked)
    source: str = "the caller's policy"

    def __post_init__(self) -> None:
        """Refuse a policy that cannot mean what it says."""
        for name, text in self.keys.items():
            PublicKey.from_hex(text, name)
        for text in (*self.revoked.keys, *self.revoked.bundles):
            if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
                self._refuse(f"revokes {text[:80]!r}, which is not 64 lower-case hexadecimal digits")
        if not self.rules:
            self._refuse("has no rule and would refuse every bundle")
        for rule in self.rules:
            where = f"the rule for {', '.join(rule.models) or 'no model'}"
            if not rule.models:
                self._refuse("has a rule without models")
            if unknown := [name for name in rule.keys if name not in self.keys]:
                self._refuse(f"{where} names the key {unknown[0]!r}, which is not among its keys")
            if rule.unsigned == bool(rule.keys):
                self._refuse(f"{where} must name keys, or else say unsigned = true")
            if rule.min_release < 0 or (rule.min_release and rule.unsigned):
                self._refuse(
                    f"{where} has min_release {rule.min_release}: it needs keys and cannot be below 0"
                )

    @classmethod
    def trusting(cls, *keys: PublicKey) -> Policy:
        """A policy that asks for a signature by one of these keys, whatever the model.

        Raises:
            InputError: no key is given.
        """
        if not keys:
            raise InputError("no key is given to trust", remedy="give at least one public key")
        names = {key.name or key.id[:16]: key.id for key in keys}
        if len(names) < len({key.id for key in keys}):  # of one name, such as two files of two folders
            names = {key.id: key.id for key in keys}
        return cls(1, names, (Rule(models=("*",), keys=tuple(names)),))

    @classmethod
    def read(cls, path: str | Path) -> Policy:
        """Read a policy file.

        The file and its folder must belong to root or to this user, and nobody else may be able to write them: who can
        change or remove a policy decides what is trusted.

        Raises:
            InputError: it is not there, cannot be read, could be changed by others, is not TOML, breaks the closed
                schema or contradicts itself. A policy is never ignored.
            MissingDependency: Python 3.10 without tomli.
        """
        path = Path(path)
        try:
            refuse_if_others_write(path.parent, path.parent.stat())
            data = read_small_file(path, _MAX_POLICY_BYTES, guarded=True)
            plain = parse_toml(data.decode("utf-8"), path)
            if "source" in plain:
                raise ManifestInvalid("policy has an unknown key 'source'", remedy=_MEND)
            return from_plain(cls, {**plain, "source": str(path)}, "policy")
        except MissingDependency:
            raise
        except ManifestInvalid as error:
            raise InputError(f"{path}: {error.message}", remedy=_MEND) from error
        except InputError as error:
            named = str(path) in error.message
            message = error.message if named else f"{path}: {error.message}"
            raise InputError(message, remedy=error.remedy) from error
        except (OSError, ValueError) as error:  # no text, or a NUL in the name
            raise InputError(f"cannot read policy {path}: {error}", remedy=_MEND) from error

    def admit(self, bundle: Bundle) -> tuple[PublicKey, ...]:
        """Who, of the keys that count for it, signed a bundle.

        Returns:
            One key or more; none where the rule asks for no signature.

        Raises:
            SignatureInvalid: the bundle is revoked, no rule covers it, no key that counts has signed it, a signature of
                such a key does not fit it, or its release is too low.
        """
        name = bundle.manifest.spec.name
        if bundle.sha256 in self.revoked.bundles:
            self._deny(f"{name}: this bundle ({bundle.sha256[:16]}) is revoked", "fetch a newer one")
        rule = next((r for r in self.rules if any(fnmatchcase(name, p) for p in r.models)), None)
        if rule is None:
            self._deny(f"{name}: no rule covers a model of this name", "add a rule for it")
        ids = {self.keys[k]: k for k in rule.keys if self.keys[k] not in self.revoked.keys}
        mine = [s for s in bundle.signatures if s.key in ids]
        if not mine:
            if rule.unsigned:
                return ()
            self._deny(
                f"{name} is {_signers(bundle.signatures, self.revoked)}; expected a signature by "
                + (" or ".join(ids.values()) or "a key that is not revoked: its rule names none"),
                "take the bundle from its maker",
            )
        manifest = bundle.manifest.to_bytes()
        for signature in mine:
            if not signature.fits(manifest):
                self._deny(
                    f"{name}: the signature that claims to be by {ids[signature.key]} does not fit the bundle",
                    "do not use this file: fetch it again from its maker",
                )
        recent = [s for s in mine if s.release >= rule.min_release]
        if not recent:
            self._deny(
                f"{name} is signed as release {max(s.release for s in mine)}; "
                f"expected {rule.min_release} or later",
                "fetch a newer bundle",
            )
        return tuple(PublicKey.from_hex(s.key, ids[s.key]) for s in recent)

    def _refuse(self, problem: str) -> None:
        raise InputError(f"{self.source} {problem}", remedy=_MEND)

    def _deny(self, problem: str, remedy: str) -> NoReturn:
        raise SignatureInvalid(
            f"{problem} (asked by {self.source})", remedy=f"{remedy}, or change what is trusted"
        )


Trust: TypeAlias = PublicKey | Policy | str | Path | Sequence[PublicKey | str | Path]
"""What a caller can ask for: a public key or its file, several of which one must have signed, or a policy."""


def admit(bundle: Bundle, trust: Trust | None = None) -> tuple[PublicKey, ...]:
    """Hold a bundle against every policy that applies here; nothing of it may reach an engine before.

    Args:
        bundle: open, its hashes checked.
        trust: asked for beyond the policies of the device and of ``$EDGE_SDK_POLICY``.

    Returns:
        The trusted keys that signed it; empty where nobody asked for one.

    Raises:
        SignatureInvalid: a policy refuses it.
        InputError: a policy or key cannot be read.
    """
    policies = device_policies()
    if trust is not None:
        policies = (*policies, _asked(trust))
    found = {key.id: key for policy in policies for key in policy.admit(bundle)}
    return tuple(found.values())


def check_fit(bundle: Bundle) -> None:
    """Refuse a bundle that carries a signature which does not fit it, by whatever key.

    Raises:
        SignatureInvalid: it does.
    """
    manifest = bundle.manifest.to_bytes()
    for signature in bundle.signatures:
        if not signature.fits(manifest):
            raise SignatureInvalid(
                f"{bundle.manifest.spec.name}: the signature that claims to be by {signature.key[:16]} does not fit "
                "the bundle",
                remedy="do not use this file: fetch it again from its maker",
            )


def known_keys() -> Mapping[str, str]:
    """Id to name of the keys that this device's policies name and of those that signed the zoo."""
    named = {key.id: key.name for key in zoo.signing_keys()}
    return named | {id_: name for policy in device_policies() for name, id_ in policy.keys.items()}


def device_policies() -> tuple[Policy, ...]:
    """The device's policy and that of ``$EDGE_SDK_POLICY``, those of them that there are.

    Raises:
        InputError: one is there, or is named, and cannot be read.
    """
    found = []
    try:
        DEVICE_POLICY.lstat()  # a link that leads nowhere is there, and is refused
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(
            f"cannot look for a policy at {DEVICE_POLICY}: {error.strerror}", remedy="let this user read it"
        ) from error
    else:
        found.append(Policy.read(DEVICE_POLICY))
    named = os.environ.get(POLICY_VARIABLE)
    if named is not None:
        found.append(Policy.read(named))
    return tuple(found)


def _asked(trust: Trust) -> Policy:
    if isinstance(trust, Policy):
        return trust
    several = (trust,) if isinstance(trust, (PublicKey, str, Path)) else tuple(trust)
    return Policy.trusting(*(k if isinstance(k, PublicKey) else PublicKey.read(k) for k in several))


def _signers(signatures: Sequence[Signature], revoked: Revoked) -> str:
    """What a message says of signatures that do not count."""
    if not signatures:
        return "not signed"
    shown = [s.key[:16] + (" (revoked)" if s.key in revoked.keys else "") for s in signatures]
    return f"signed by {', '.join(shown)}"
