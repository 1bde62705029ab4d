"""Every error this SDK raises on purpose.

    EdgeError
    ├── BundleError              the bundle cannot be used as it is (exit code 4)
    │   ├── ManifestInvalid      schema version, key or value that the format does not allow
    │   ├── ChecksumMismatch     a byte differs from what the manifest promises
    │   └── SignatureInvalid     nobody who is trusted for it vouches for the bundle
    ├── TargetError              the engine cannot do it (exit code 3)
    │   ├── UnknownTarget        (LookupError) no such target
    │   ├── MissingDependency    (ImportError) a package is not installed; carries the pip command
    │   ├── UnsupportedRecipe    the engine's tools cannot do what a recipe asks for (exit code 2)
    │   ├── CompileFailed        the engine's compiler refused the network
    │   ├── LoadFailed           the engine refused the artifact
    │   ├── InferFailed          the engine failed on a frame
    │   └── ModelBusy            another thread is using the model or session
    ├── InputError               (ValueError) expected against actual shape, dtype, name (exit code 2)
    ├── QuantizeError            making a smaller network went wrong (exit code 1)
    │   ├── CalibrationFailed    the calibration set cannot be used
    │   └── GateFailed           accuracy fell by more than the recipe allows; carries its report
    └── SourceError              a source gives no pictures (exit code 3)
        └── SourceUnavailable    the file, folder or video cannot be opened

Every error says what was expected, what came, and what to do (``remedy``). "No face" is not an error: it is
``Detections.empty()``.
"""

from __future__ import annotations

from collections.abc import Mapping


class EdgeError(Exception):
    """Base of all errors of this SDK.

    Args:
        message: what was expected and what came, one line.
        remedy: what to do about it, one line.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}"


class BundleError(EdgeError):
    """The bundle cannot be used as it is."""

    exit_code = 4


class ManifestInvalid(BundleError):
    """The manifest or the archive has a version, key, value or member that the format does not allow."""


class ChecksumMismatch(BundleError):
    """A byte differs from what the manifest promises, or an engine's answer from the golden vectors."""


class SignatureInvalid(BundleError):
    """Nobody who is trusted for it vouches for the bundle: not signed, by another key, revoked, too old, or forged."""


class TargetError(EdgeError):
    """The engine cannot do it."""

    exit_code = 3


class UnknownTarget(TargetError, LookupError):
    """No target or model of this name."""

    exit_code = 2


class MissingDependency(TargetError, ImportError):
    """A package is not installed; the remedy is the command that installs it."""


class UnsupportedRecipe(TargetError):
    """The engine's tools cannot do what the recipe asks for; nothing else is done in its place."""

    exit_code = 2


class CompileFailed(TargetError):
    """The engine's compiler refused the network."""

    exit_code = 1


class LoadFailed(TargetError):
    """The engine refused the artifact."""


class InferFailed(TargetError):
    """The engine failed while it computed an answer, or gave one that is not a number."""


class ModelBusy(TargetError):
    """A model or session was called or closed while another thread was using it."""


class InputError(EdgeError, ValueError):
    """An argument, file or picture has another shape, dtype, name or content than expected."""

    exit_code = 2


class QuantizeError(EdgeError):
    """Making a smaller network went wrong."""


class CalibrationFailed(QuantizeError):
    """The calibration set cannot be used."""


class GateFailed(QuantizeError):
    """Accuracy fell by more than the recipe allows.

    Args:
        report: metric names to figures, as the gate measured them.
    """

    def __init__(self, message: str, *, remedy: str, report: Mapping[str, object]) -> None:
        super().__init__(message, remedy=remedy)
        self.report = dict(report)


class SourceError(EdgeError):
    """A source gives no pictures."""

    exit_code = 3


class SourceUnavailable(SourceError):
    """The file, folder or video cannot be opened."""
