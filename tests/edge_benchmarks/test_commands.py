"""The commands' parts that need no engine, and what they refuse."""

import json
import platform
from pathlib import Path

import numpy as np
import pytest

from edge_benchmarks import footprint, module_cli, speedup, wrapper
from edge_sdk import timing
from edge_sdk.errors import InputError
from edge_sdk.target import Artifact
from edge_sdk.testing import FakeSession


class FakeTarget:
    """Loads anything; remembers the order in which its sessions ran."""

    def __init__(self, order):
        self.order = order

    def load(self, artifact, spec, *, options):
        (content,) = artifact.files.values()
        maps = {t.name: np.zeros(t.shape, np.float32) for t in spec.outputs}

        def answer(inputs):
            self.order.append(content.decode()[:20])
            return maps

        return FakeSession(spec, answer=answer)

    def compile(self, model, *, recipe, ranges=None):
        return Artifact({"model": b"compiled"}, ("pixels",), tuple(t.name for t in model.spec.outputs))


@pytest.fixture
def order(monkeypatch):
    taken = []
    monkeypatch.setattr(speedup, "find_target", lambda name: FakeTarget(taken))
    return taken


def test_a_reference_among_the_bundles_is_one(make_bundle, order):
    a, b = make_bundle("a"), make_bundle("b", "openvino", "int8")
    _, shares = speedup.relative_latencies([str(b), a], rounds=5)
    assert list(shares) == [str(b), a]
    assert (shares[a].share, shares[a].low, shares[a].high) == (1, 1, 1)
    assert 0 < shares[str(b)].low <= shares[str(b)].share <= shares[str(b)].high
    assert set(order) == {"a", "b"}


def test_bundles_take_turns_and_the_first_changes(make_bundle, order):
    paths = [make_bundle("a"), make_bundle("b", "tflite")]
    speedup.relative_latencies(paths, rounds=4)
    assert order[:8] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert len(order) == 2 * (4 + timing.WARM_UP)


def test_a_float_onnx_file_can_be_the_reference(make_bundle, order, tmp_path):
    onnx = tmp_path / "float.onnx"
    onnx.write_bytes(b"graph")
    path = make_bundle("b", "openvino")
    assert list(speedup.relative_latencies([path], reference=onnx, rounds=2)[1]) == [path]
    assert set(order) == {"b", "compiled"}


def test_a_reference_that_is_also_listed_runs_once(make_bundle, order):
    a, b = make_bundle("a"), make_bundle("b", "openvino")
    assert speedup.relative_latencies([a, b], reference=a, rounds=2)[1][a].share == 1
    assert order.count("a") == order.count("b")


def test_another_precision_cannot_be_the_reference(make_bundle, order):
    with pytest.raises(InputError, match="onnxruntime int8"):
        speedup.relative_latencies([], reference=make_bundle("a", "onnxruntime", "int8"))


def test_a_missing_reference_is_named(make_bundle, order, tmp_path):
    with pytest.raises(InputError, match=r"none\.onnx"):
        speedup.relative_latencies([make_bundle("b", "tflite")], reference=tmp_path / "none.onnx")


def test_wrapper_plants_a_face_where_the_network_sees_none(make_model):
    model = make_model(faces=())
    row = wrapper.measure_wrapper(model, 3)
    assert row["faces"] == "planted"
    assert len(model(np.zeros((480, 640, 3), np.uint8))) == 1


def test_wrapper_takes_frames_on_which_one_face_is_seen(make_model):
    row = wrapper.measure_wrapper(make_model(), 3)
    assert row["faces"] == "32 frames"
    assert row["frames"] == 3


def test_infer_compares_turn_about(spec):
    calls = []
    result = wrapper.measure_infer(lambda: calls.append("ours"), lambda: calls.append("raw"), 4)
    assert calls[-8:] == ["ours", "raw", "raw", "ours", "ours", "raw", "raw", "ours"]
    assert result["pairs"] == 4
    assert result["low_us"] <= result["high_us"]


def test_a_zoo_name_without_usable_bundles_is_refused(monkeypatch):
    monkeypatch.setattr(module_cli, "available_targets", lambda: ())
    with pytest.raises(InputError, match="no shipped bundle"):
        module_cli.expand(["fer-yolo11n"])


def test_paths_stay_as_they_are(tmp_path):
    assert module_cli.expand(["a.edge", tmp_path / "b.edge"]) == [
        tmp_path.__class__("a.edge"),
        tmp_path / "b.edge",
    ]


@pytest.mark.parametrize("module", [wrapper, speedup])
def test_a_missing_bundle_is_two_lines_and_exit_code_two(module, capsys):
    assert module.main(["missing.edge", "--json"]) == 2
    message = capsys.readouterr()
    assert message.out == ""
    assert len(message.err.splitlines()) == 2


def test_speedup_prints_a_row_for_each_bundle(make_bundle, order, capsys):
    a, b = make_bundle("a"), make_bundle("b", "openvino", "int8")
    assert speedup.main([str(a), str(b), "--rounds", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["target"] for row in printed["rows"]] == ["onnxruntime", "openvino"]
    assert printed["rows"][0]["relative_latency"] == 1
    assert speedup.main([str(a), str(b), "--rounds", "2"]) == 0
    text = capsys.readouterr().out
    assert "openvino-int8" in text
    assert max(map(len, text.splitlines())) <= 100


def baseline(tmp_path, limit, flags=(), machine=None):
    path = tmp_path / "baseline.json"
    shares = {"fer-yolo11n openvino int8": {"usual": limit / 2, "limit": limit}}
    machine = machine or platform.machine()
    path.write_text(json.dumps({"machine": machine, "cpu_flags": list(flags), "shares": shares}))
    return path


def test_a_share_wholly_beyond_its_limit_is_exit_code_one(make_bundle, order, tmp_path, capsys):
    bundles = [str(make_bundle("a")), str(make_bundle("b", "openvino", "int8"))]
    few = ["--rounds", "3"]
    assert speedup.main([*bundles, *few, "--baseline", str(baseline(tmp_path, 1e9))]) == 0
    assert speedup.main([*bundles, *few, "--baseline", str(baseline(tmp_path, 1e-9))]) == 1
    assert "BEYOND fer-yolo11n openvino int8" in capsys.readouterr().out


def test_another_kind_of_processor_is_not_held_against_a_baseline(make_bundle, order, tmp_path, capsys):
    bundles = [str(make_bundle("a")), str(make_bundle("b", "openvino", "int8"))]
    for changes, reason in (({"machine": "abacus"}, "for abacus"), ({"flags": ["beads"]}, "has no beads")):
        path = baseline(tmp_path, 1e-9, **changes)
        assert speedup.main([*bundles, "--rounds", "3", "--baseline", str(path)]) == 0
        assert reason in capsys.readouterr().out


def test_a_share_is_beyond_only_with_its_whole_interval(tmp_path):
    limits = speedup.read_baseline(baseline(tmp_path, 1.0))
    row = {"name": "fer-yolo11n", "target": "openvino", "precision": "int8", "relative_latency": 1.3}
    assert speedup.exceeded(limits, [{**row, "low": 0.9, "high": 1.7}]) == []
    assert len(speedup.exceeded(limits, [{**row, "low": 1.1, "high": 1.5}])) == 1


def test_the_repositorys_baselines_can_be_read_and_others_are_refused(tmp_path):
    folder = Path(__file__).parents[2] / "benchmarks" / "baselines"
    found = [speedup.read_baseline(path) for path in folder.glob("*.json")]
    assert found
    assert all(limit.limit > 1.5 * limit.usual for one in found for limit in one.shares.values())
    for text in ("{", '{"machine": "x"}', "[]"):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match=r"x\.json"):
            speedup.read_baseline(tmp_path / "x.json")


def test_footprint_counts_files_and_not_pip(tmp_path):
    for name, content in (
        ("numpy/core.so", b"x" * 100),
        ("numpy/__pycache__/core.pyc", b"x" * 50),
        ("numpy-2.0.dist-info/RECORD", b"x" * 10),
        ("pip/main.py", b"x" * 1000),
        ("pip-24.0.dist-info/RECORD", b"x" * 1000),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert footprint.size(tmp_path) == 110
    assert footprint.distributions(tmp_path) == 1


def test_footprint_needs_a_project_or_a_wheel(tmp_path, capsys):
    with pytest.raises(InputError, match=r"pyproject\.toml"):
        footprint.build_wheel(tmp_path, tmp_path)
    assert footprint.main(["--wheel", str(tmp_path / "none.whl"), "--wheel-only"]) == 2
    assert "no wheel" in capsys.readouterr().err
