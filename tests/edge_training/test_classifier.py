import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

import torch

from edge_sdk.errors import InputError
from edge_training.data import fer2013
from edge_training.stages.base import Teacher
from edge_training.stages.classifier import ClassifierOptions, ClassifierStage


def stage(teacher=None, **options):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 7
    faces = fer2013.Faces(
        # Even brightness: whatever varies inside a picture afterwards was put there.
        np.broadcast_to(rng.integers(60, 200, (40, 1, 1)), (40, 48, 48)).astype(np.uint8),
        labels,
        np.eye(7, dtype=np.float32)[labels],
        np.zeros(40, bool),
    )
    options = ClassifierOptions(epochs=12, sides=(32, 48), batch=10, **options)
    return ClassifierStage(options, "gmenet", fer2013.Fer2013(faces, faces, faces), 1, teacher)


def changed(made, epoch):
    """Share of an epoch's pictures that are covered with noise, as every second covered one is."""
    batches = made.batches(epoch)
    pictures = [picture for i in range(len(batches)) for picture in batches[i][0].numpy()]
    return np.mean([p.std((0, 1)).max() > 3 for p in pictures])


def test_batches_take_turns_in_the_sides():
    batches = stage().batches(0)
    assert [batches[i][0].shape[1] for i in range(len(batches))] == [32, 48, 32, 48]


class Certain(torch.nn.Module):
    """Of one expression, whatever it sees."""

    def __init__(self, expression, logit=50.0):
        super().__init__()
        self.logits = torch.nn.Parameter(logit * torch.eye(7)[expression])

    def forward(self, images):
        return (self.logits.expand(len(images), 7),) * 2


def test_a_teacher_has_its_share_of_the_targets():
    made = stage(Teacher((Certain(3), 48)), distil=0.6, balance=0.0)
    made.network(None)
    targets = made.batches(0)[0][1].numpy()
    assert targets.sum(1) == pytest.approx(1)
    assert targets[:, 3].min() == pytest.approx(0.6 + 0.4 * 0.05 / 7)
    # Another label, or the same.
    assert np.unique(targets.max(1).round(4)) == pytest.approx([0.6029, 0.9829], abs=1e-4)


def test_teachers_answer_with_the_mean_of_their_logits_each_at_its_side():
    sides = []

    class Looks(Certain):
        def forward(self, images):
            sides.append(images.shape[-1])
            return super().forward(images)

    both = Teacher((Looks(3, 2.0), 48), (Looks(5, 4.0), 64))
    faces = [np.full((48, 48), grey, np.uint8) for grey in (10, 200)]
    expected = torch.tensor([0, 0, 0, 1.0, 0, 2.0, 0])
    assert both(faces) == pytest.approx(expected.softmax(0).expand(2, 7).numpy(), abs=1e-6)
    assert set(sides) == {48, 64}
    del sides[:]
    torch.testing.assert_close(both.logits(torch.rand(3, 3, 48, 48)), expected.expand(3, 7))
    assert sides == [48, 48, 64, 64]  # each crop and its mirror image


def test_a_share_of_no_teacher_is_refused():
    with pytest.raises(InputError, match="distil without a teacher"):
        stage(distil=0.5)


def test_pictures_of_strength_zero_are_not_covered_and_those_of_strength_two_are():
    assert changed(stage(strength=0.0), 0) == 0
    assert changed(stage(strength=2.0), 0) > 0.15


def test_strength_grows_from_one_third_to_two_thirds_of_the_epochs():
    made = stage(strength=0.0, last_strength=2.0)
    assert [changed(made, epoch) for epoch in (0, 4)] == [0, 0]
    assert 0 < changed(made, 6) < 1
    assert all(changed(made, epoch) > 0.15 for epoch in (8, 11))


def test_a_batch_is_the_same_whenever_it_is_made():
    a, b = (stage(strength=0.7).batches(2)[1] for _ in range(2))
    assert all((x == y).all() for x, y in zip(a, b, strict=True))
