"""Benchmarks of networks that remember, and of networks that are given more than one picture."""

import json

import numpy as np
import pytest

pytest.importorskip("onnx", reason="host tool not installed")
pytest.importorskip("onnxruntime", reason="engine not installed")

import added_task
import numbers_task
import recurrent

import edge_sdk as edge
from edge_benchmarks import crosscheck, scenarios, speedup, wrapper
from edge_benchmarks.system_under_test import network_inputs
from edge_sdk.cli import main
from edge_sdk.image import write_image
from edge_sdk.target import find_target, is_installed
from edge_targets.conformance.several_inputs import CLIP, PAIR

NETWORKS = {"pair": PAIR, "clip": CLIP}


@pytest.fixture(params=["recurrent", *NETWORKS])
def bundle(request, tmp_path, monkeypatch):
    """A network that remembers, of a task of ours; and two that are given several inputs, of a task that was added."""
    if request.param == "recurrent":
        onnx = recurrent.write_onnx(tmp_path / "float.onnx")
        return recurrent.write_bundle(tmp_path, recurrent.SPEC, onnx)
    added_task.add(monkeypatch, tmp_path / "added", "numbers", numbers_task.TASK, numbers_task.EVALUATOR)
    network = NETWORKS[request.param]
    return recurrent.write_bundle(tmp_path, network.spec, network.write_onnx(tmp_path / "float.onnx"))


@pytest.fixture
def remembering(tmp_path):
    """For children, which know no task that a test added."""
    return recurrent.write_bundle(tmp_path, recurrent.SPEC, recurrent.write_onnx(tmp_path / "float.onnx"))


@pytest.mark.parametrize("scenario", ["single-stream", "paced", "multi-stream", "offline"])
def test_every_scenario_of_this_process_drives_it(bundle, scenario):
    run = edge.bench(bundle, scenario=scenario, duration_s=0.2, threads=1)
    assert run.incomplete is None
    assert run.count >= 1
    assert run.stages["end_to_end"].mean_ms > 0


def test_a_cold_start_answers_with_a_state(remembering, tmp_path):
    output = tmp_path / "cold.json"
    command = ["bench", str(remembering), "--scenario", "cold", "--processes", "2", "-o", str(output)]
    assert main([*command, "--threads", "1"]) == 0
    (run,) = json.loads(output.read_text())["runs"]
    assert run["count"] == 2
    assert run.get("incomplete") is None


def test_memory_is_measured_with_a_state(remembering):
    options = scenarios.Options(memory=True, threads=1)
    run = scenarios.run(remembering, scenario="single-stream", duration_s=0.2, options=options)
    assert run.memory is not None
    assert run.memory.peak_mb > 0


def test_the_wrapper_is_measured_and_infer_beside_the_vendors_own_call(bundle):
    row = wrapper.measure(bundle, count=5, threads=1)
    assert row["wrapper"]["frames"] == 5
    assert row["wrapper"]["faces"] == "32 frames"
    assert row["infer"]["raw_us"] > 0


def test_speedup_feeds_every_input(bundle):
    _, shares = speedup.relative_latencies([bundle], rounds=3, threads=1)
    assert shares[bundle].share == 1


def test_crosscheck_feeds_every_input(bundle, monkeypatch):
    monkeypatch.setattr(crosscheck, "TOOLS", ())
    assert crosscheck.check(bundle, rounds=1, seconds=0.05, threads=1)["rows"] == []


def test_inputs_are_made_for_every_name_and_a_state_is_zeros(bundle):
    with edge.load(bundle) as model:
        made = network_inputs(model.task, 3)
        assert len(made) == 3
        for inputs in made:
            assert {n: (a.shape, a.dtype.name) for n, a in inputs.items()} == {
                t.name: (t.shape, t.dtype) for t in model.spec.inputs
            }
            assert all(array.flags.c_contiguous for array in inputs.values())
            assert not any(inputs[pair.input].any() for pair in model.spec.state)
        assert not np.shares_memory(*(inputs[model.spec.pixels.name] for inputs in made[:2]))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_commands_know_what_it_remembers(engine, tmp_path, capsys):
    if not is_installed(find_target(engine)):
        pytest.skip(f"{engine} is not installed")
    onnx = recurrent.write_onnx(tmp_path / "float.onnx")
    path = str(recurrent.write_bundle(tmp_path, recurrent.SPEC, onnx, engine))
    assert main(["inspect", path]) == 0
    text = capsys.readouterr().out
    assert "Z9_frame uint8 1x16x16x3, h float32 1x2" in text
    assert "H becomes h of the next step" in text
    assert main(["verify", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["golden"] == "pass"
    (tmp_path / "frames").mkdir()
    for index in range(3):
        write_image(tmp_path / "frames" / f"{index}.png", np.full((32, 32, 3), 255, np.uint8))
    assert main(["predict", path, "--source", str(tmp_path / "frames"), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    scores = [max(face["score"] for face in row["faces"]) for row in rows]
    odds = np.log(np.array(scores) / (1 - np.array(scores)))
    np.testing.assert_allclose(odds, (1, 1.5, 1.75), atol=0.01)


def test_what_an_added_task_answers_is_printed_and_drawn(bundle, tmp_path, capsys):
    write_image(tmp_path / "frame.png", np.full((64, 64, 3), 90, np.uint8))
    command = ["predict", str(bundle), "--source", str(tmp_path / "frame.png")]
    assert main([*command, "--save", str(tmp_path / "drawn")]) == 0
    assert capsys.readouterr().out.startswith("frame.png: ")
    assert (tmp_path / "drawn" / "frame.png").is_file()
