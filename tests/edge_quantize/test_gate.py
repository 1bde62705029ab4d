import json

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

from edge_quantize.gate import check_alive, compare
from edge_quantize.report import Metric, Report
from edge_sdk.bundle import DataDigest
from edge_sdk.errors import GateFailed
from edge_sdk.spec import Gate
from edge_sdk.testing import FakeSession

DATA = DataDigest(3, "0" * 64)
GATE = Gate({"map50": 0.01, "accuracy": 0.02})


def report(map50, accuracy=0.8, **ap50):
    figures = {"map50": map50, "accuracy": accuracy}
    return Report(
        metrics={name: Metric(value, value, value) for name, value in figures.items()},
        per_class={label: {"ap50": value, "faces": 5.0} for label, value in ap50.items()},
        confusion=[],
        best_confidence=0.5,
    )


def test_what_hardly_fell_passes_and_is_recorded():
    result = compare(report(0.70), report(0.6905), GATE, DATA)
    assert result.evaluation == DATA
    assert result.metrics["map50"].reference == 0.7
    assert result.metrics["map50"].compiled == 0.6905
    assert result.metrics["map50"].max_drop == 0.01
    assert set(result.metrics) == {"map50", "accuracy"}


def test_what_rose_passes():
    assert compare(report(0.70), report(0.9), GATE, DATA).metrics["map50"].compiled == 0.9


def test_each_metric_counts():
    with pytest.raises(GateFailed, match=r"accuracy 0\.8000 -> 0\.7700") as caught:
        compare(report(0.7, a=0.7), report(0.7, 0.77, a=0.7), GATE, DATA)
    assert "map50" not in caught.value.message


def test_a_failed_gate_reports_figures_and_the_classes_that_lost_most():
    before = report(0.7, sad=0.9, happy=0.9, angry=0.8, fear=0.7)
    after = report(0.5, sad=0.4, happy=0.88, angry=0.5, fear=0.69)
    with pytest.raises(GateFailed, match=r"map50 0\.7000 -> 0\.5000.*sad \(\+0\.500\), angry") as caught:
        compare(before, after, GATE, DATA)
    found = caught.value.report
    assert found["metrics"]["map50"] == {"reference": 0.7, "compiled": 0.5, "max_drop": 0.01}
    assert found["class_drop"]["happy"] == pytest.approx(0.02)
    assert json.dumps(found)


def test_a_class_without_pictures_is_not_among_those_that_lost():
    nan = float("nan")
    before = report(0.7, sad=nan, happy=nan, angry=0.8, fear=nan, calm=0.9)
    after = report(0.5, sad=nan, happy=nan, angry=0.7, fear=nan, calm=0.3)
    with pytest.raises(GateFailed, match=r"most lost on calm \(\+0\.600\), angry") as caught:
        compare(before, after, GATE, DATA)
    assert "nan" not in caught.value.message


def test_a_figure_that_is_no_number_fails():
    with pytest.raises(GateFailed):
        compare(report(0.7), report(float("nan")), GATE, DATA)


def frames():
    return [toys.picture(np.random.default_rng(seed))[0][None] for seed in range(3)]


def spoilt(**maps):
    return FakeSession(toys.SPEC, answer=lambda pixels: {**toys.engine(pixels), **maps})


def test_outputs_that_follow_the_picture_are_alive():
    check_alive(spoilt(), frames())


@pytest.mark.parametrize("name", ["cls32", "box8"])
def test_a_constant_output_is_found_by_its_name(name):
    shape = next(t.shape for t in toys.SPEC.outputs if t.name == name)
    with pytest.raises(GateFailed, match=f"'{name}' is the same for every picture") as caught:
        check_alive(spoilt(**{name: np.full(shape, 0.5, np.float32)}), frames())
    assert caught.value.report["output"] == name


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_found_by_its_name(value):
    with pytest.raises(GateFailed, match="'box16' is not finite"):
        check_alive(spoilt(box16=np.full((1, 4, 4, 16), value, np.float32)), frames())


def test_an_engine_that_reuses_its_arrays_is_not_called_constant():
    kept = {name: value.copy() for name, value in toys.engine(frames()[0]).items()}

    def answer(pixels):
        for name, value in toys.engine(pixels).items():
            kept[name][...] = value
        return kept

    check_alive(FakeSession(toys.SPEC, answer=answer), frames())
