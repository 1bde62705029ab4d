import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import toys

from edge_quantize.gate import check_alive, compare, outputs_of
from edge_quantize.report import Metric, Report, Sample
from edge_sdk.bundle import DataDigest
from edge_sdk.errors import GateFailed
from edge_sdk.spec import Gate
from edge_sdk.testing import FakeSession

DATA = DataDigest(3, "0" * 64)
GATE = Gate({"map50": 0.01, "accuracy": 0.02})
PICTURES = 1000


def answers(share, *, seed=0, pictures=PICTURES):
    """(pictures,) right answers; with one seed, what a lesser share has right a greater one has too."""
    order = np.random.default_rng(seed).permutation(pictures)
    return (order < round(share * pictures)).astype(float)


def report(map50, accuracy=0.8, *, pictures=PICTURES, seed=0, **ap50):
    right = {
        name: answers(share, seed=seed, pictures=pictures)
        for name, share in (("map50", map50), ("accuracy", accuracy))
    }

    def figures(weights, names):
        return {name: float(np.average(right[name], weights=weights)) for name in names}

    return Report(
        metrics={n: Metric(v, v, v) for n, v in figures(np.ones(pictures), right).items()},
        per_class={label: {"ap50": value, "faces": 5.0} for label, value in ap50.items()},
        confusion=[],
        best_confidence=0.5,
        sample=Sample(figures, dict.fromkeys(right, pictures), ("",) * pictures),
    )


def test_what_hardly_fell_passes_and_is_recorded_with_its_bounds():
    result = compare(report(0.70), report(0.697), GATE, DATA)
    assert result.evaluation == DATA
    assert result.waiver is None
    map50 = result.metrics["map50"]
    assert (map50.reference, map50.compiled, map50.max_drop) == (0.7, 0.697, 0.01)
    assert map50.low < map50.compiled - map50.reference < map50.high <= 0
    assert set(result.metrics) == {"map50", "accuracy"}


def test_what_rose_passes():
    assert compare(report(0.70), report(0.9), GATE, DATA).metrics["map50"].compiled == 0.9


def test_each_metric_counts():
    with pytest.raises(
        GateFailed, match=r"accuracy 0\.8000 -> 0\.7700 on 1,000 pictures, lost 3\.00 points"
    ) as caught:
        compare(report(0.7, a=0.7), report(0.7, 0.77, a=0.7), GATE, DATA)
    assert "map50" not in caught.value.message
    assert "higher precision" in caught.value.remedy


def test_a_bound_is_what_the_paired_difference_says():
    """15 of 1,000 pictures became wrong: the share's own error, not that of 0.7."""
    result = compare(report(0.70), report(0.685), Gate({"map50": 0.05}), DATA).metrics["map50"]
    error = (0.015 * 0.985 / PICTURES) ** 0.5
    assert result.low == pytest.approx(-0.015 - 1.645 * error, abs=0.001)
    assert result.high == pytest.approx(-0.015 + 1.645 * error, abs=0.001)


def test_what_fell_within_the_limit_but_may_have_fallen_more_fails_and_says_how_many_pictures_would_tell():
    """Other pictures became wrong than became right: no net fall, and no proof either."""
    before, after = report(0.7), report(0.7, seed=1)
    assert before.metrics["map50"] == after.metrics["map50"]
    with pytest.raises(GateFailed, match=r"lost nothing, at 95 % confidence 3\.\d\d at most") as caught:
        compare(before, after, Gate({"map50": 0.01}), DATA)
    assert "cannot show" in caught.value.remedy
    needed = int(caught.value.remedy.split("about ")[1].split(" ")[0].replace(",", ""))
    wide = compare(before, after, Gate({"map50": 0.1}), DATA).metrics["map50"]
    assert needed == pytest.approx(PICTURES * (-wide.low / 0.01) ** 2, rel=0.01)


@pytest.mark.parametrize(("pictures", "passes"), [(298, False), (299, True)])
def test_a_set_too_small_to_show_the_limit_shows_nothing_even_if_no_answer_changed(pictures, passes):
    """The rule of three: 0.95 = 1 - 0.99 ** 299."""
    before, after = report(0.7, pictures=pictures), report(0.7, pictures=pictures)
    gate = Gate({"map50": 0.01})
    if passes:
        assert compare(before, after, gate, DATA).metrics["map50"].low == 0
    else:
        with pytest.raises(GateFailed) as caught:
            compare(before, after, gate, DATA)
        assert "about 299 " in caught.value.remedy


def test_a_higher_confidence_asks_for_more():
    before, after = report(0.7), report(0.693)
    assert compare(before, after, Gate({"map50": 0.013}, confidence=0.95), DATA)
    with pytest.raises(GateFailed, match=r"99\.9 % confidence"):
        compare(before, after, Gate({"map50": 0.013}, confidence=0.999), DATA)


def test_the_same_answers_give_the_same_bounds():
    first, second = (compare(report(0.7), report(0.695), Gate({"map50": 0.1}), DATA) for _ in range(2))
    assert first == second


def test_a_waiver_is_kept_only_where_something_failed():
    waived = compare(report(0.7), report(0.5), GATE, DATA, waive="a prototype")
    assert waived.waiver == "a prototype"
    assert waived.metrics["map50"].compiled == 0.5
    assert compare(report(0.7), report(0.7), GATE, DATA, waive="a prototype").waiver is None


def test_a_failed_gate_reports_figures_and_the_classes_that_lost_most():
    before = report(0.7, sad=0.9, happy=0.9, angry=0.8, fear=0.7)
    after = report(0.5, sad=0.4, happy=0.88, angry=0.5, fear=0.69)
    with pytest.raises(GateFailed, match=r"map50 0\.7000 -> 0\.5000.*sad \(-0\.500\), angry") as caught:
        compare(before, after, GATE, DATA)
    found = caught.value.report
    map50 = found["metrics"]["map50"]
    assert (map50["reference"], map50["compiled"], map50["max_drop"], map50["passed"]) == (
        0.7,
        0.5,
        0.01,
        False,
    )
    assert map50["low"] < -0.2 < map50["high"] < -0.17
    assert found["class_drop"]["happy"] == pytest.approx(0.02)
    assert json.dumps(found)


def test_a_class_without_pictures_is_not_among_those_that_lost():
    nan = float("nan")
    before = report(0.7, sad=nan, happy=nan, angry=0.8, fear=nan, calm=0.9)
    after = report(0.5, sad=nan, happy=nan, angry=0.7, fear=nan, calm=0.3)
    with pytest.raises(GateFailed, match=r"most lost on calm \(-0\.600\), angry") as caught:
        compare(before, after, GATE, DATA)
    assert "nan" not in caught.value.message


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_a_figure_that_is_no_number_fails(value):
    after = report(0.7)
    after = dataclasses.replace(after, metrics={**after.metrics, "map50": Metric(value, value, value)})
    with pytest.raises(GateFailed):
        compare(report(0.7), after, GATE, DATA)


def frames():
    return [{"pixels": toys.picture(np.random.default_rng(seed))[0][None]} for seed in range(3)]


def spoilt(**maps):
    return FakeSession(toys.SPEC, answer=lambda inputs: {**toys.engine(inputs["pixels"]), **maps})


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
    kept = {name: value.copy() for name, value in toys.engine(frames()[0]["pixels"]).items()}

    def answer(inputs):
        for name, value in toys.engine(inputs["pixels"]).items():
            kept[name][...] = value
        return kept

    check_alive(FakeSession(toys.SPEC, answer=answer), frames())


@pytest.mark.parametrize(("name", "end", "match"), [("cls8", 1, "greatest"), ("box16", -1, "least")])
def test_an_output_that_clips_what_the_float_network_is_surest_of_is_found_by_its_name(name, end, match):
    many = [{"pixels": toys.picture(np.random.default_rng(seed))[0][None]} for seed in range(9)]
    truth = outputs_of(spoilt(), many)
    limit = float(np.median([end * (end * value).max() for value in truth[name]]))
    limit -= end * 0.2 * float(np.ptp(truth[name]))

    def clipped(inputs):
        answer = toys.engine(inputs["pixels"])
        bound = (None, limit) if end == 1 else (limit, None)
        return {**answer, name: np.clip(answer[name], *bound)}

    with pytest.raises(GateFailed, match=f"'{name}' is saturated: its {match} value") as caught:
        check_alive(FakeSession(toys.SPEC, answer=clipped), many, truth)
    assert caught.value.report["output"] == name


def test_an_output_whose_extremes_are_the_float_networks_own_is_not_saturated():
    many = [{"pixels": toys.picture(np.random.default_rng(seed))[0][None]} for seed in range(9)]
    capped = FakeSession(
        toys.SPEC, answer=lambda p: {n: np.clip(v, -5, 3) for n, v in toys.engine(p["pixels"]).items()}
    )
    ratios = check_alive(capped, many, outputs_of(capped, many))
    assert set(ratios) == {t.name for t in toys.SPEC.outputs}
    assert set(ratios.values()) == {float("inf")}


def test_the_noise_of_each_output_is_told():
    rng = np.random.default_rng(0)
    noisy = FakeSession(
        toys.SPEC,
        answer=lambda p: {
            n: v + rng.normal(0, 1 if n == "cls16" else 0.01, v.shape).astype(np.float32)
            for n, v in toys.engine(p["pixels"]).items()
        },
    )
    ratios = check_alive(noisy, frames(), outputs_of(spoilt(), frames()))
    assert min(ratios, key=ratios.get) == "cls16"
    with pytest.raises(GateFailed, match=r"noisiest outputs cls16 \(.* dB\)"):
        compare(report(0.7), report(0.6), GATE, DATA, outputs_db=ratios)
