"""What every bundle brings to prove itself on a device."""

import numpy as np
import pytest
import recurrent
import toys

from edge_quantize.golden import STEPS, golden_cases, golden_frame
from edge_sdk.errors import CompileFailed
from edge_sdk.tasks import task_of
from edge_sdk.verify import check_golden


def test_the_golden_frame_shows_swapped_channels_a_mirror_and_a_shift():
    frame = golden_frame()
    assert frame.dtype == np.uint8
    assert frame.shape == (180, 240, 3)
    assert (frame == golden_frame()).all()
    for other in (frame[..., ::-1], frame[:, ::-1], frame[::-1], np.roll(frame, 8, 1)):
        assert (frame != other).any(axis=2).mean() > 0.5


def test_a_recurrent_network_has_a_case_per_step_with_what_it_remembered_before():
    task, session = task_of(recurrent.SPEC), recurrent.session()
    cases = golden_cases(session, task)
    assert len(cases) == STEPS
    before = [case.inputs["h"][0, 0] for case in cases]
    after = [float(case.outputs["H"][0, 0]) for case in cases]
    assert before[0] == 0
    np.testing.assert_allclose(before[1:], after[:-1], rtol=1e-3)
    for case in reversed(cases):  # each stands for itself, in any order
        check_golden(session, task, case, 35.0)


@pytest.mark.parametrize("value", [1e6, 1e-9, np.nan])
def test_an_output_that_float16_cannot_hold_is_refused_when_the_bundle_is_built(value):
    outputs = {t.name: np.ones(t.shape, np.float32) for t in recurrent.SPEC.outputs}
    outputs["H"][:] = value
    session = toys.FakeSession(recurrent.SPEC, answer=lambda inputs: outputs)
    with pytest.raises(CompileFailed, match="'H' reaches") as caught:
        golden_cases(session, task_of(recurrent.SPEC))
    assert "scale the output" in caught.value.remedy


def test_an_output_of_zeros_is_no_problem():
    outputs = {t.name: np.zeros(t.shape, np.float32) for t in recurrent.SPEC.outputs}
    session = toys.FakeSession(recurrent.SPEC, answer=lambda inputs: outputs)
    assert len(golden_cases(session, task_of(recurrent.SPEC))) == STEPS
