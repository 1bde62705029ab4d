import json

import pytest

from edge_benchmarks import growth

pytest.importorskip("onnxruntime", reason="engine of onnxruntime is not installed")
pytest.importorskip("onnx", reason="host tool not installed")


def test_growth_is_told_for_a_canvas_drawn_anew_and_for_new_arrays(capsys):
    assert growth.main(["onnxruntime", "--calls", "200", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["target"], row["precision"], row["calls"]) == ("onnxruntime", "fp32", 200)
    assert {"canvas_kb", "new_kb"} <= set(row)
    assert row["canvas_us"] > 0


def test_too_few_calls_say_nothing(capsys):
    assert growth.main(["onnxruntime", "--calls", "5"]) == 2
    assert "at least 10" in capsys.readouterr().err
