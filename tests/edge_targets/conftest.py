import importlib
import json
import sys
from pathlib import Path

import pytest

FAKES = Path(__file__).parents[1] / "fakes"
VERSIONS = ("8.6.1", "10.0.1", "10.3.0", "10.13.3.9", "11.0.0.114", "11.4.0.106")


def _forget():
    for name in [m for m in sys.modules if m == "tensorrt" or m.split(".")[0] == "cuda"]:
        del sys.modules[name]


class FakeTensorRt:
    """The fake TensorRT and CUDA of tests/fakes, in some version."""

    def __init__(self, patch, folder):
        self._patch, self._log = patch, folder / "tensorrt.log"
        patch.syspath_prepend(str(FAKES))
        patch.setenv("FAKE_TENSORRT_LOG", str(self._log))

    def version(self, version):
        self._patch.setenv("FAKE_TENSORRT", version)
        _forget()
        return importlib.import_module("tensorrt")

    @property
    def cuda(self):
        return importlib.import_module("cuda.bindings.runtime")

    def calls(self, kind):
        """What was recorded of one kind of call, in this process and in children."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [record for line in lines if (record := json.loads(line))["call"] == kind]


@pytest.fixture
def fake_tensorrt(monkeypatch, tmp_path):
    """The fakes, importable in this process and in the ones that it starts."""
    fake = FakeTensorRt(monkeypatch, tmp_path)
    fake.version("10.3.0")
    yield fake
    _forget()


@pytest.fixture(scope="module")
def tensorrt_on_the_processor(tmp_path_factory):
    """The fakes, with plans built in this process: for a suite that loads often."""
    pytest.importorskip("onnxruntime", reason="the fake TensorRT computes by it")
    pytest.importorskip("onnx", reason="the fake TensorRT parses by it")
    from edge_targets.tensorrt import builder

    with pytest.MonkeyPatch.context() as patch:
        fake = FakeTensorRt(patch, tmp_path_factory.mktemp("tensorrt"))
        trt = fake.version("10.3.0")
        patch.setattr(
            builder,
            "build",
            lambda onnx, options, progress=None: builder.compile_plan(trt, onnx, options, progress),
        )
        yield
    _forget()
