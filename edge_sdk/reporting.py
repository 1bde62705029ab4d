"""Libraries that report to their makers, told not to: what is measured on a device stays on it.

``import edge_sdk`` sets the documented switches before any function of the SDK can import an engine, and children
inherit them. Where no switch is documented, a library is imported without the module that reports for it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

SWITCHES: Mapping[str, str] = {
    # From 1.29 on it looks up its maker's host after some seconds, and keeps a device's identity and a database of
    # events in the user's cache folder: Privacy.md in its package says so, and names the switch.
    "ORT_DISABLE_TELEMETRY": "1",
    # https://docs.ray.io/en/latest/cluster/usage-stats.html
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Environment variables and the values that keep a library from reporting."""


def switch_off() -> None:
    """Set the switches that this process's environment does not set itself: whoever set one has decided.

    Warns (RuntimeWarning) where onnxruntime was imported before, which reads its switch once, when it is imported.
    """
    late = "onnxruntime" in sys.modules and not os.environ.get("ORT_DISABLE_TELEMETRY")
    for name, value in SWITCHES.items():
        if not os.environ.get(name):
            os.environ[name] = value
    if late:
        warnings.warn(
            "onnxruntime was imported before edge_sdk and may report to its maker: import edge_sdk first, or set "
            "ORT_DISABLE_TELEMETRY=1",
            RuntimeWarning,
            stacklevel=3,
        )


@contextmanager
def unreported() -> Iterator[None]:
    """Import without ``openvino_telemetry``: with it, OpenVINO and NNCF fork processes that report to their maker."""
    name = "openvino_telemetry"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # how Python is told that a module is not there
    try:
        yield
    finally:
        del sys.modules[name]


def import_matplotlib() -> Any:
    """The module ``matplotlib``, drawing into memory, its list of fonts in a temporary folder and not in the user's.

    Raises:
        ImportError: it is not installed.
    """
    name = "MPLCONFIGDIR"
    if "matplotlib" in sys.modules or name in os.environ:
        import matplotlib
        import matplotlib.font_manager
    else:
        with tempfile.TemporaryDirectory() as folder:
            os.environ[name] = folder
            try:
                import matplotlib
                import matplotlib.font_manager
            finally:
                del os.environ[name]
    matplotlib.use("Agg")
    return matplotlib
