"""Nothing leaves the device and nothing is left behind: a short look; ``make privacy`` looks for a minute each."""

import importlib.util
import shutil

import privacy
import pytest

from edge_sdk import zoo

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
TALKATIVE = """
import socket, sys
open("left-behind", "w").close()
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 53))
except OSError:
    pass
"""
"""192.0.2.1 belongs to nobody: RFC 5737."""


def test_a_program_that_speaks_and_writes_is_seen():
    seen = privacy.watch(TALKATIVE, seconds=0)
    assert seen.network == ("connect to 192.0.2.1 port 53",)
    assert seen.files == ("/here/left-behind",)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "tflite"])
def test_an_engine_says_nothing_and_leaves_nothing(engine):
    module = {"tflite": "ai_edge_litert"}.get(engine, engine)
    if importlib.util.find_spec(module) is None or not zoo.bundles("pad-minifasnet"):
        pytest.skip(f"{engine} is not installed")
    seen = privacy.watch(privacy.PROGRAMS[engine], seconds=1)
    assert (seen.code, seen.network, seen.files) == (0, (), ()), seen.said
