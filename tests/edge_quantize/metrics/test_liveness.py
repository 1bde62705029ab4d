"""Rates of presentation attack detection, against hand-worked cases."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="host tool not installed")

import toys
from hypothesis import given
from hypothesis import strategies as st

from edge_quantize.data import read_presentations
from edge_quantize.gate import compare
from edge_quantize.metrics.liveness import (
    METRICS,
    bpcer_at,
    clopper_pearson,
    det,
    equal_error,
    evaluate,
    scores,
    threshold_at,
)
from edge_sdk.bundle import DataDigest
from edge_sdk.errors import GateFailed, InputError
from edge_sdk.image import FaceCrop, write_image
from edge_sdk.spec import Gate
from edge_sdk.tasks.liveness import LABELS, LivenessHead, LivenessTask

SPEC = dataclasses.replace(
    toys.CLASSIFIER,
    head=LivenessHead("liveness", LABELS, FaceCrop(1.0, "shift"), threshold=0.5, min_face=8, max_outside=0.2),
)


def test_a_hand_worked_case():
    found = np.array([0.9, 0.8, 0.7, 0.4, 0.6, 0.2, 0.1, 0.3, 0.55, 0.65])
    groups = ["bona_fide"] * 4 + ["print"] * 4 + ["mask"] * 2
    report = evaluate(found, groups, 0.5)
    assert tuple(report.metrics) == METRICS
    assert report.metrics["bpcer"].value == pytest.approx(1 / 4)
    assert report.per_class["print"]["apcer"] == pytest.approx(1 / 4)
    assert report.per_class["mask"]["apcer"] == pytest.approx(1)
    assert report.metrics["apcer_worst"].value == 1
    assert report.metrics["acer"].value == pytest.approx((1 + 1 / 4) / 2)
    assert report.score_of("print") == pytest.approx(3 / 4)
    assert report.confusion == [[3, 1], [2, 0], [1, 3]]  # bona fide, mask, print
    # Ranks: 24 pairs of bona fide and attack, of which 0.4 loses to three and all others win.
    assert report.metrics["auc"].value == pytest.approx(21 / 24)
    # Rejecting all masks takes a threshold above 0.65, which costs one bona fide picture of four.
    assert report.metrics["bpcer10"].value == pytest.approx(1 / 4)


def test_perfect_scores_have_no_errors():
    report = evaluate(np.array([0.9, 0.8, 0.1, 0.2]), ["bona_fide", "bona_fide", "print", "replay"], 0.5)
    assert {n: m.value for n, m in report.metrics.items()} == {
        **dict.fromkeys(METRICS, 0.0),
        "auc": 1.0,
    }


def test_clopper_pearson_is_the_published_interval():
    # 0 of 20: the "rule of three" is about 1 - 0.025 ** (1 / 20); 10 of 20 from published tables.
    assert clopper_pearson(0, 20).high == pytest.approx(1 - 0.025 ** (1 / 20))
    half = clopper_pearson(10, 20)
    assert (half.low, half.high) == (pytest.approx(0.2720, abs=1e-4), pytest.approx(0.7280, abs=1e-4))
    assert clopper_pearson(20, 20).high == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_curves_are_monotone_and_the_equal_error_lies_on_them(genuine, attacks):
    found = np.array(genuine + attacks)
    is_genuine = np.arange(len(found)) < len(genuine)
    apcer, bpcer = det(found, is_genuine, ~is_genuine, np.ones(len(found)))
    assert (np.diff(apcer) <= 1e-12).all()
    assert (np.diff(bpcer) >= -1e-12).all()
    assert (apcer[0], bpcer[0]) == (1, 0)
    assert (apcer[-1], bpcer[-1]) == (0, 1)
    assert 0 <= equal_error(apcer, bpcer) <= 1
    limits = [bpcer_at(apcer, bpcer, limit) for limit in (0.1, 0.05, 0.01)]
    assert limits == sorted(limits)


@pytest.mark.parametrize("groups", [["bona_fide"] * 3, ["print"] * 3])
def test_one_class_alone_has_no_rates(groups):
    with pytest.raises(InputError, match="bona fide"):
        evaluate(np.array([0.1, 0.2, 0.3]), groups, 0.5)


def test_a_rate_that_rose_fails_the_gate():
    groups = ["bona_fide"] * 100 + ["print"] * 100
    good = evaluate(np.linspace(1, 0, 200), groups, 0.5)
    accepted = np.linspace(1, 0, 200)
    accepted[100:140] = 0.9
    data = DataDigest(200, "0" * 64)
    assert compare(good, good, Gate({"apcer_worst": 0.05}), data).metrics["apcer_worst"].compiled == 0
    with pytest.raises(GateFailed, match=r"apcer_worst 0\.0000 -> 0\.4000 on 100 .*print \(-0\.400\)"):
        compare(good, evaluate(accepted, groups, 0.5), Gate({"apcer_worst": 0.05, "bpcer": 0.05}), data)


def write_presentations(folder, boxes=False):
    """Reddish pictures are bona fide, greenish ones attacks."""
    lines = ["file,x1,y1,x2,y2"]
    for group, channel in (("bona_fide", 0), ("print", 1), ("replay", 1)):
        (folder / group).mkdir(parents=True)
        for index in range(4):
            image = np.full((40, 60, 3), 60, np.uint8)
            image[5:35, 10:40, channel] = 200 + index
            write_image(folder / group / f"{index}.png", image)
            lines.append(f"{group}/{index}.png,10,5,40,35")
    if boxes:
        (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    return folder


class Session:
    def infer(self, inputs):
        return toys.classify(inputs["pixels"])


@pytest.mark.parametrize("boxes", [False, True])
def test_presentations_are_read_by_species_and_scored(tmp_path, boxes):
    items = read_presentations(write_presentations(tmp_path / "set", boxes), LABELS)
    assert [item.group for item in items] == ["bona_fide"] * 4 + ["print"] * 4 + ["replay"] * 4
    found, groups = scores(Session(), LivenessTask(SPEC), items)
    assert evaluate(found, groups, 0.5).metrics["auc"].value == 1


def test_a_face_that_cannot_be_judged_counts_as_rejected(tmp_path):
    folder = write_presentations(tmp_path / "set", boxes=True)
    text = (
        (folder / "boxes.csv").read_text().replace("bona_fide/0.png,10,5,40,35", "bona_fide/0.png,10,5,14,9")
    )
    (folder / "boxes.csv").write_text(text)
    found, _ = scores(Session(), LivenessTask(SPEC), read_presentations(folder, LABELS))
    assert found[0] == 0
    assert found[1] > 0.5


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda folder: (folder / "bona_fide").rename(folder / "live"), "bona_fide"),
        (lambda folder: (folder / "boxes.csv").write_text("file,x1,y1,x2,y2\n"), r"print/|bona_fide/0"),
        (lambda folder: (folder / "boxes.csv").write_text("a.png,1,2,3\n"), "line 1"),
        (lambda folder: (folder / "boxes.csv").write_text("a.png,5,2,3,9\n"), "line 1"),
        (lambda folder: write_image(folder / "x.png", np.zeros((8, 8, 3), np.uint8)), r"x\.png"),
    ],
)
def test_a_set_that_is_not_laid_out_so_is_named(tmp_path, change, match):
    folder = write_presentations(tmp_path / "set", boxes=True)
    change(folder)
    with pytest.raises(InputError, match=match):
        read_presentations(folder, LABELS)


@given(st.integers(0, 1000), st.sampled_from([0.05, 0.1, 0.2]) | st.floats(0.01, 0.5))
def test_a_threshold_lets_no_species_pass_more_often_than_it_may_and_is_the_least_that_does(seed, limit):
    rng = np.random.default_rng(seed)
    groups = ["bona_fide"] * 40 + ["print"] * 60 + ["mask"] * 50
    found = np.concatenate((rng.beta(5, 2, 40), rng.beta(2, 5, 60), rng.beta(3, 4, 50)))

    def worst(threshold):
        return max((found[40:100] >= threshold).mean(), (found[100:] >= threshold).mean())

    threshold = threshold_at(found, groups, limit)
    assert worst(threshold) <= limit
    assert worst(found[found < threshold].max()) > limit


def test_a_threshold_needs_attacks_that_are_not_all_certain():
    with pytest.raises(InputError, match="no attack"):
        threshold_at(np.array([0.1, 0.9]), ["bona_fide"] * 2, 0.05)
    with pytest.raises(InputError, match="highest score 1"):
        threshold_at(np.array([0.1, 1.0, 1.0]), ["bona_fide", "print", "print"], 0.05)
