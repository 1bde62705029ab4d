"""Liveness fails closed: only a finite score at or above the threshold, of a face that can be judged, is bona fide."""

import dataclasses

import numpy as np
import pytest
import toys

from edge_sdk.errors import InputError, ManifestInvalid
from edge_sdk.image import Cropper, FaceCrop
from edge_sdk.model import Model, ModelInfo
from edge_sdk.tasks import task_of
from edge_sdk.tasks.liveness import LABELS, LivenessHead, LivenessTask
from edge_sdk.testing import FakeSession

HEAD = LivenessHead("liveness", LABELS, FaceCrop(2.7, "shift"), threshold=0.6, min_face=20, max_outside=0.2)
SPEC = dataclasses.replace(toys.CLASSIFIER, name="toy-liveness", head=HEAD)
FRAME = np.full((120, 160, 3), 90, np.uint8)
GOOD = [60, 40, 100, 80]


def model(*logits):
    """Answers with the logits it was given, one face after another."""
    left = iter(logits)
    info = ModelInfo(
        SPEC.name, SPEC.task, SPEC.labels, (16, 16), "toy", "fp32", None, "Apache-2.0", "0" * 64, "the test"
    )
    session = FakeSession(SPEC, answer=lambda inputs: {"logits": np.array([next(left)], np.float32)})
    return Model(session, LivenessTask(SPEC), info)


def logit(score):
    return (np.log(score / (1 - score)), 0.0)


@pytest.mark.parametrize(
    ("score", "decision"), [(0.99, "bona fide"), (0.601, "bona fide"), (0.599, "attack"), (0.01, "attack")]
)
def test_the_threshold_decides(score, decision):
    (face,) = model(logit(score))(FRAME, boxes=[GOOD])
    assert face.decision == decision
    assert face.bona_fide == (decision == "bona fide")
    assert face.score == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize("logits", [(np.nan, 0), (np.inf, 0), (0, np.nan), (np.inf, np.inf), (0, -np.inf)])
def test_what_is_no_number_is_undecided_and_not_bona_fide(logits):
    (face,) = model(logits)(FRAME, boxes=[GOOD])
    assert face.decision == "undecided"
    assert not face.bona_fide
    assert face.score == 0
    assert "no number" in face.reason


@pytest.mark.parametrize(
    ("box", "reason"),
    [([10, 10, 29, 60], "19 pixels"), ([-15, 40, 25, 80], "38%"), ([140, 40, 180, 80], "50%")],
)
def test_a_face_too_small_or_cut_off_is_undecided_however_sure_the_network_is(box, reason):
    (face,) = model((50.0, 0.0))(FRAME, boxes=[box])
    assert (face.decision, face.bona_fide) == ("undecided", False)
    assert reason in face.reason


def test_faces_are_judged_one_by_one():
    found = model(logit(0.9), logit(0.1), logit(0.9))(FRAME, boxes=[GOOD, GOOD, [0, 0, 5, 5]])
    assert found.decisions == ("bona fide", "attack", "undecided")
    assert [f["decision"] for f in found.to_dict()["faces"]] == list(found.decisions)
    assert len(model()(FRAME, boxes=[])) == 0


def test_boxes_are_required():
    with pytest.raises(InputError, match="boxes"):
        model((1.0, 0.0))(FRAME)


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0.0},
        {"threshold": 1.0},
        {"threshold": float("nan")},
        {"min_face": 0},
        {"max_outside": 1.0},
        {"labels": ("attack", "bona fide")},
        {"labels": ("bona fide", "attack", "other")},
    ],
)
def test_a_spec_that_would_not_fail_closed_is_refused(change):
    with pytest.raises(ManifestInvalid):
        dataclasses.replace(SPEC, head=dataclasses.replace(HEAD, **change))


def test_the_spec_chooses_the_task():
    assert type(task_of(SPEC)) is LivenessTask


@pytest.mark.parametrize("box", [GOOD, [-20, -20, 30, 30], [100, 60, 200, 160], [0, 0, 160, 120]])
def test_a_shifted_crop_shows_only_pixels_of_the_frame(box):
    """The frame's pixels are all different from what a repeated edge would show: coordinates."""
    y, x = np.mgrid[0:120, 0:160]
    frame = np.stack((x, y, np.zeros_like(x)), 2).astype(np.uint8)
    cropper = Cropper(side_x=240, side_y=240, crop=FaceCrop(2.7, "shift"))
    crop = cropper(frame, np.array(box, np.float32))[0]
    # No two neighbours far apart are equal: nothing is repeated along an edge.
    assert (np.diff(crop[0, ::8, 0].astype(int)) > 0).all()
    assert (np.diff(crop[::8, 0, 1].astype(int)) > 0).all()
