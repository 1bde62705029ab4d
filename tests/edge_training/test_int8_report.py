"""The table of what int8 costs."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import toys  # noqa: E402

from edge_quantize.recipe import read_recipe  # noqa: E402
from edge_quantize.workbench import Workbench, source_model  # noqa: E402
from edge_sdk.target import Artifact, find_target  # noqa: E402
from edge_training import int8_report  # noqa: E402


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8-report")
    return Workbench(
        source_model(toys.CLASSIFIER, toys.write_classifier_onnx(folder / "toy.onnx")),
        calibration=toys.write_crops(folder / "calibration", 20, 1),
        evaluation=toys.write_crops(folder / "evaluation", 40, 2),
    )


@pytest.mark.parametrize("engine", ["onnxruntime", "tensorrt"])
def test_a_row_holds_float_beside_int8_and_what_the_difference_may_be(bench, tmp_path, engine):
    recipe = read_recipe(toys.write_recipe(tmp_path, "int8"))
    row = int8_report.compare(bench, find_target(engine), recipe)
    assert row.ran_in == "onnxruntime"
    assert (row.relative_latency is None) == (engine == "tensorrt")
    assert set(row.metrics) == set(row.passed) == {"accuracy", "macro_f1", "uar"}
    for metric in row.metrics.values():
        assert metric.low <= metric.compiled - metric.reference <= metric.high
    assert len(int8_report.markdown_rows(row).splitlines()) == 3
    columns = int8_report.markdown_header().splitlines()[1].count("---")
    assert {line.count(" | ") + 1 for line in int8_report.markdown_rows(row).splitlines()} == {columns}


def test_a_network_that_says_the_same_to_every_picture_is_a_row_with_its_problem(
    bench, tmp_path, monkeypatch
):
    class Constant:
        outputs = toys.CLASSIFIER.outputs

        def infer(self, pixels):
            return {t.name: np.zeros(t.shape, np.float32) for t in self.outputs}

        def close(self):
            pass

    monkeypatch.setattr(Workbench, "compile", lambda *_: Artifact({"model.onnx": b""}, (), ()))
    monkeypatch.setattr(Workbench, "load", lambda *_: Constant())
    row = int8_report.compare(
        bench, find_target("onnxruntime"), read_recipe(toys.write_recipe(tmp_path, "int8"))
    )
    assert "is the same for every picture" in row.problem
    assert not row.metrics
    assert "is the same for every picture" in int8_report.markdown_rows(row)
    assert " no " in int8_report.markdown_rows(row)
