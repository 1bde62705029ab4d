import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch")

from edge_training.data import fer2013
from edge_training.stages.classifier import ClassifierOptions, ClassifierStage


def stage(**options):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 7
    faces = fer2013.Faces(
        # Even brightness: whatever varies inside a picture afterwards was put there.
        np.broadcast_to(rng.integers(60, 200, (40, 1, 1)), (40, 48, 48)).astype(np.uint8),
        labels,
        np.eye(7, dtype=np.float32)[labels],
        np.zeros(40, bool),
    )
    options = ClassifierOptions(epochs=12, side=32, late_side=48, late_epochs=3, batch=20, **options)
    return ClassifierStage(options, "gmenet", fer2013.Fer2013(faces, faces, faces), seed=1)


def changed(made, epoch):
    """Share of an epoch's pictures that are covered with noise, as every second covered one is."""
    batches = made.batches(epoch)
    pictures = np.concatenate([batches[i][0].numpy() for i in range(len(batches))])
    return np.mean([p.std((0, 1)).max() > 3 for p in pictures])


def test_late_epochs_are_seen_at_the_late_side():
    made = stage()
    assert [made.batches(epoch)[0][0].shape[1] for epoch in (0, 8, 9, 11)] == [32, 32, 48, 48]


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
