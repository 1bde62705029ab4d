"""What a recurrent network remembers: kept by the caller, one state per stream."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("cv2", reason="OpenCV is not installed")

import recurrent
import toys

import edge_sdk as edge
from edge_sdk.bundle import DataDigest, GateResult
from edge_sdk.errors import InferFailed
from edge_sdk.model import Model, ModelInfo
from edge_sdk.state import State
from edge_sdk.tasks import task_of

WHITE, BLACK = np.full((40, 40, 3), 255, np.uint8), np.zeros((40, 40, 3), np.uint8)


def loaded(session, spec=recurrent.SPEC):
    gate = GateResult(DataDigest(1, "0" * 64), {})
    info = ModelInfo(
        spec.name, spec.task, spec.labels, None, "fake", "fp32", gate, "Apache-2.0", "0" * 64, "a test"
    )
    return Model(session, task_of(spec), info)


@pytest.fixture
def model():
    return loaded(recurrent.session())


def bright(model, image, state, **boxes):
    """The odds that the classifier gives: the difference of its logits."""
    (shares,) = model(image, state=state, **boxes).probs
    return float(np.log(shares[0] / shares[1]))


def test_it_starts_at_zero_and_each_step_sees_the_one_before(model):
    state = model.new_state()
    assert [bright(model, WHITE, state) for _ in range(3)] == pytest.approx([1, 1.5, 1.75], abs=1e-5)
    state.reset()
    assert bright(model, WHITE, state) == pytest.approx(1, abs=1e-5)


def test_two_streams_with_a_state_each_do_not_see_each_other(model):
    one, other = model.new_state(), model.new_state()
    seen = [(bright(model, WHITE, one), bright(model, BLACK, other)) for _ in range(3)]
    np.testing.assert_allclose(seen, [(1, 0), (1.5, 0), (1.75, 0)], atol=1e-5)


def test_a_state_that_is_missing_unwanted_or_of_another_network_is_refused(model):
    with pytest.raises(edge.InputError, match="recurrent needs a state") as caught:
        model(WHITE)
    assert "new_state" in caught.value.remedy
    foreign = replace(recurrent.SPEC, name="foreign")
    with pytest.raises(edge.InputError, match="state of another network, foreign"):
        model(WHITE, state=State(foreign))
    plain = loaded(toys.FakeSession(toys.SPEC), toys.SPEC)
    assert plain.new_state() is None
    with pytest.raises(edge.InputError, match="remembers nothing"):
        plain(WHITE, state=model.new_state())


def test_a_state_made_from_the_same_spec_serves_as_after_loading_again(model):
    state = model.new_state()
    bright(model, WHITE, state)
    again = loaded(recurrent.session(), replace(recurrent.SPEC))
    assert bright(again, WHITE, state) == pytest.approx(1.5, abs=1e-5)


def test_several_faces_with_one_state_are_refused_and_change_nothing(model):
    state = model.new_state()
    with pytest.raises(edge.InputError, match="remembers one face, and 2 were given") as caught:
        model(WHITE, boxes=[[0, 0, 20, 20], [20, 20, 40, 40]], state=state)
    assert "state of its own" in caught.value.remedy
    assert not state.tensors["h"].any()
    assert len(model(WHITE, boxes=np.zeros((0, 4)), state=state)) == 0
    assert not state.tensors["h"].any()


def test_each_face_has_its_own_state(model):
    picture = np.concatenate((WHITE, BLACK), axis=1)
    faces = {(0, 0, 40, 40): model.new_state(), (40, 0, 80, 40): model.new_state()}
    for _ in range(2):
        seen = [bright(model, picture, state, boxes=[box]) for box, state in faces.items()]
    np.testing.assert_allclose(seen, (1.5, 0), atol=1e-5)


def test_a_step_that_fails_is_not_remembered():
    def fail(inputs):
        raise InferFailed("it fell", remedy="lift it")

    model = loaded(toys.FakeSession(recurrent.SPEC, answer=fail))
    state = model.new_state()
    with pytest.raises(InferFailed):
        model(WHITE, state=state)
    assert not state.tensors["h"].any()


def test_a_closed_model_says_so_before_it_asks_for_a_state(model):
    model.close()
    with pytest.raises(edge.InputError, match="closed"):
        model(WHITE)
