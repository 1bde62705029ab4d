"""What is special in OpenVINO: its cache, its settings, silence, and pixels in its int8 graphs."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import toys

from edge_sdk.engine_cache import EngineCache
from edge_sdk.errors import InputError, LoadFailed
from edge_sdk.target import Artifact, LoadOptions, SourceModel, find_target
from edge_sdk.verify import snr_db
from edge_targets.openvino.options import Options


def compiled(toy_onnx, recipe=toys.FP32):
    pytest.importorskip("openvino", reason="engine not installed")
    return toys.compile_by(find_target("openvino"), SourceModel(toys.SPEC, toy_onnx), recipe)


def load(artifact, **options):
    return find_target("openvino").load(artifact, toys.SPEC, options=LoadOptions(**options))


@pytest.mark.parametrize("options", [{"streams": 0}, {"hint": "speed"}])
def test_options_that_mean_nothing_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        Options(**options)
    with pytest.raises(InputError, match=next(iter(options))):
        load(Artifact({}, (), ()), engine=options)


@pytest.fixture
def openvino_artifact(toy_onnx, tmp_path):
    openvino = pytest.importorskip("openvino", reason="engine of openvino is not installed")
    openvino.save_model(openvino.Core().read_model(toy_onnx), tmp_path / "model.xml", compress_to_fp16=False)
    files = {name: (tmp_path / name).read_bytes() for name in ("model.bin", "model.xml")}
    return dataclasses.replace(toys.artifact(), files=files)


def test_openvino_starts_again_from_what_it_compiled(openvino_artifact, tmp_path, monkeypatch):
    import openvino

    options = LoadOptions(threads=1, cache=EngineCache(tmp_path / "engines"))
    with find_target("openvino").load(openvino_artifact, toys.SPEC, options=options) as session:
        first = {name: value.copy() for name, value in session.infer(toys.inputs()).items()}
    # A second compilation would be an error now.
    monkeypatch.setattr(openvino.Core, "compile_model", None)
    with find_target("openvino").load(openvino_artifact, toys.SPEC, options=options) as session:
        again = session.infer(toys.inputs())
        assert all((again[name] == first[name]).all() for name in first)
    with pytest.raises(LoadFailed):
        find_target("openvino").load(
            openvino_artifact, toys.SPEC, options=LoadOptions(threads=2, cache=options.cache)
        )


def test_what_openvino_refuses_from_the_cache_is_compiled_again(openvino_artifact, tmp_path, monkeypatch):
    cache = EngineCache(tmp_path / "engines")
    monkeypatch.setattr(cache, "get", lambda facts: b"not an engine at all")
    with find_target("openvino").load(
        openvino_artifact, toys.SPEC, options=LoadOptions(threads=1, cache=cache)
    ) as session:
        assert set(session.infer(toys.inputs())) == {t.name for t in toys.SPEC.outputs}


@pytest.mark.parametrize(
    "options",
    [
        {"engine": {"hint": "throughput"}},
        {"engine": {"streams": 2}, "threads": 2},
        {"devices": ("AUTO",)},
    ],
)
def test_openvino_computes_the_same_with_every_setting(options, toy_onnx):
    built = compiled(toy_onnx)
    with find_target("openvino").load(
        built, toys.SPEC, options=LoadOptions(**{"threads": 1, **options})
    ) as session:
        assert session.device == "CPU"
        for name, expected in toys.answers().items():
            assert snr_db(expected, session.infer(toys.inputs())[name]) > 90
        network = session.handle.get_compiled_model()
        own = options.get("engine", {})
        if "streams" in own:
            assert network.get_property("NUM_STREAMS") == 2
        if "hint" in own:
            assert network.get_property("PERFORMANCE_HINT") == "THROUGHPUT"


def test_openvino_does_not_report_to_its_maker():
    pytest.importorskip("openvino", reason="engine of openvino is not installed")
    code = """
import os, sys
os.register_at_fork(before=lambda: print("forked"))
from edge_targets.openvino.session import import_openvino
import_openvino().Core()
print("there" if "openvino_telemetry" in sys.modules else "silent")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["silent"]


def test_more_streams_than_threads_are_refused_not_lowered(toy_onnx):
    with pytest.raises(InputError, match="2 streams were asked for, and 1 threads"):
        find_target("openvino").load(
            compiled(toy_onnx), toys.SPEC, options=LoadOptions(threads=1, engine={"streams": 2})
        )


def test_openvino_stores_half_precision_in_half_the_bytes(toy_onnx):
    whole = compiled(toy_onnx)
    half = compiled(toy_onnx, dataclasses.replace(toys.FP32, name="fp16", precision="fp16"))
    assert len(half.files["model.bin"]) < 0.6 * len(whole.files["model.bin"])
    with find_target("openvino").load(half, toys.SPEC, options=LoadOptions(threads=1)) as session:
        for name, expected in toys.answers().items():
            assert snr_db(expected, session.infer(toys.inputs())[name]) > 40


def test_openvino_gives_the_pixels_their_own_256_steps(toy_onnx):
    openvino = pytest.importorskip("openvino", reason="engine not installed")
    pytest.importorskip("nncf", reason="host tool not installed")
    files = compiled(toy_onnx, toys.INT8).files
    weights = openvino.Tensor(np.frombuffer(files["model.bin"], np.uint8))
    network = openvino.Core().read_model(files["model.xml"], weights)
    fakes = [op for op in network.get_ordered_ops() if op.get_type_name() == "FakeQuantize"]
    limits = [[float(op.input_value(i).get_node().get_data()) for i in range(1, 5)] for op in fakes]
    assert limits[0] == pytest.approx([0, 1, 0, 1])  # after the multiplication by 1/255
