"""One liveness network that learns another's function, and what it is shown."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from edge_sdk.errors import InputError  # noqa: E402
from edge_training import agreement, checkpoint  # noqa: E402
from edge_training.data import distil_inputs  # noqa: E402
from edge_training.data.distil_inputs import CROP, KINDS, SHARES, Inputs  # noqa: E402
from edge_training.data.portraits import Portrait  # noqa: E402
from edge_training.export import fuse  # noqa: E402
from edge_training.networks.minifas import LAYOUT, FixedNorm, MiniFAS  # noqa: E402
from edge_training.reference_models import MiniFASNetV2  # noqa: E402
from edge_training.stages import distil, judgeable, stages_of  # noqa: E402
from edge_training.stages.base import Schedule  # noqa: E402
from edge_training.stages.distil import DistilOptions, DistilStage  # noqa: E402
from edge_training.stages.judgeable import JudgeableOptions, JudgeableStage  # noqa: E402
from edge_training.teachers import LIVE, MiniFASTeacher, live_logit  # noqa: E402
from edge_training.train import fit  # noqa: E402

PUBLISHED = ((32, 64, 24, 2), *((64, 64, 8, 1),) * 4, (64, 128, 24, 2), *((128, 128, 8, 1),) * 6)
PUBLISHED += ((128, 128, 24, 2), *((128, 128, 8, 1),) * 2)
NAMES = ("conv_23", *(f"conv_3.model.{i}" for i in range(4)), "conv_34")
NAMES += (*(f"conv_4.model.{i}" for i in range(6)), "conv_45", *(f"conv_5.model.{i}" for i in range(2)))


def published(file, *, squeeze=()):
    """A state dict with the published layout's names, and narrow blocks; ``squeeze`` names blocks that have one."""
    rng = np.random.default_rng(3)
    w = {}

    def norm(name, c):
        w[f"{name}.weight"] = rng.uniform(0.5, 1.5, c)
        w[f"{name}.bias"] = rng.normal(0, 0.3, c)
        w[f"{name}.running_mean"] = rng.normal(0, 0.3, c)
        w[f"{name}.running_var"] = rng.uniform(0.5, 2, c)

    def unit(name, out, per_group, side, *, prelu=True):
        w[f"{name}.conv.weight"] = rng.normal(
            0, 1 / np.sqrt(per_group * side * side), (out, per_group, side, side)
        )
        norm(f"{name}.bn", out)
        if prelu:
            w[f"{name}.prelu.weight"] = rng.uniform(-0.1, 0.4, out)

    unit("conv1", 32, 3, 3)
    w["conv1.conv.weight"] /= 100  # pixels go to 255
    unit("conv2_dw", 32, 1, 3)
    for name, (c_in, c_out, hidden, _) in zip(NAMES, PUBLISHED, strict=True):
        unit(f"{name}.conv", hidden, c_in, 1)
        unit(f"{name}.conv_dw", hidden, 1, 3)
        unit(f"{name}.project", c_out, hidden, 1, prelu=False)
        if name in squeeze:
            w[f"{name}.se_fc1.weight"] = rng.normal(0, 0.3, (4, c_out, 1, 1))
            w[f"{name}.se_fc2.weight"] = rng.normal(0, 0.3, (c_out, 4, 1, 1))
            norm(f"{name}.se_bn1", 4)
            norm(f"{name}.se_bn2", c_out)
    unit("conv_6_sep", 512, 128, 1)
    unit("conv_6_dw", 512, 1, 5, prelu=False)
    w["linear.weight"] = rng.normal(0, 0.05, (128, 512))
    norm("bn", 128)
    w["prob.weight"] = rng.normal(0, 0.3, (3, 128))
    np.savez(file, **w)
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    place = folder / "peers/minifasnet"
    place.mkdir(parents=True)
    published(place / "2.7_80x80_MiniFASNetV2.npz")
    published(place / "4_0_0_80x80_MiniFASNetV1SE.npz", squeeze=("conv_3.model.3", "conv_4.model.5"))
    return folder


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    portraits = []
    for _ in range(3):
        image = rng.integers(60, 120, (200, 180, 3)).astype(np.uint8)
        image[60:140, 50:130] = (210, 160, 130)
        portraits.append(Portrait(image, np.array([50, 60, 130, 140], np.float32)))
    backgrounds = [rng.integers(0, 256, (90, 120, 3)).astype(np.uint8) for _ in range(3)]
    return Inputs(portraits, backgrounds, rng.integers(0, 256, (4, 48, 48)).astype(np.uint8))


def crops(count, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (count, CROP, CROP, 3)).astype(np.uint8)


def test_the_teacher_answers_as_the_published_network_does(data):
    file = data / "peers/minifasnet/2.7_80x80_MiniFASNetV2.npz"
    images = crops(6)
    logits = distil.answers(MiniFASTeacher(file), images)
    assert logits.softmax(1)[:, LIVE].numpy() == pytest.approx(MiniFASNetV2(file)(images), abs=1e-4)


def test_the_teachers_maps_have_the_students_shapes(data):
    x = torch.rand(2, 3, CROP, CROP)
    network = MiniFAS()
    for teacher in distil.teachers(data):
        logits, embedding, maps = teacher(x)
        assert logits.shape == (2, 3)
        assert embedding.shape == (2, 128)
        assert [m.shape for m in maps] == [m.shape for m in network.maps(x)]


def test_odds_are_those_of_bona_fide_against_everything_else():
    logits = torch.randn(5, 3)
    assert torch.sigmoid(live_logit(logits)) == pytest.approx(logits.softmax(1)[:, LIVE].numpy(), abs=1e-6)


def test_missing_teachers_are_told(tmp_path):
    with pytest.raises(InputError, match="no weights"):
        distil.teachers(tmp_path)


def test_a_norm_is_fitted_once_and_folds_without_a_change():
    torch.manual_seed(0)
    x = torch.randn(8, 16, 10, 10) * 3 + 1
    norm = FixedNorm(16, 32)
    out = norm.fit(x)
    assert out.mean((0, 2, 3)).abs().max() < 1e-3
    assert (out.std((0, 2, 3)) - 1).abs().max() < 0.02
    norm.train()(x * 5)
    assert torch.equal(norm(x), out)
    assert torch.allclose(norm[1](norm[0](x).detach()) if norm.eval() else out, out, atol=1e-4)


def test_the_student_answers_alike_in_training_and_folded_for_export():
    torch.manual_seed(0)
    network, x = MiniFAS(), torch.rand(2, 3, CROP, CROP)
    trained = network.train()(x)[0]
    assert torch.allclose(network.eval()(x)[0], trained, atol=1e-5)
    assert torch.allclose(fuse(network)(x)[0], trained, atol=1e-4)
    assert sum(p.numel() for p in network.parameters()) < 1_000_000


def test_fitting_brings_every_block_to_the_teachers_scale(data):
    teacher, _ = distil.teachers(data)
    x = torch.rand(16, 3, CROP, CROP)
    _, embedding, maps = teacher(x)
    network = MiniFAS()
    network.fit(x, maps, embedding)
    assert len(maps) == len(LAYOUT)
    for found, wanted in zip(network.maps_after(x, maps), maps, strict=True):
        assert (found.mean((0, 2, 3)) - wanted.mean((0, 2, 3))).abs().max() < 0.2 * wanted.std()


def test_every_kind_makes_two_crops_and_the_same_draw_the_same(inputs):
    assert sum(SHARES.values()) == pytest.approx(1)
    for kind in KINDS:
        near, wide = inputs(kind, np.random.default_rng(4))
        assert near.shape == wide.shape == (CROP, CROP, 3)
        assert near.dtype == np.uint8
        assert (inputs(kind, np.random.default_rng(4))[0] == near).all(), kind
        others = [inputs(kind, np.random.default_rng(s))[0] for s in range(5, 8)]
        assert any((other != near).any() for other in others), kind


def test_a_camera_of_no_strength_keeps_what_a_strong_one_does_not():
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3)).astype(np.uint8)
    kept, lost = (
        np.mean(
            [
                np.abs(
                    distil_inputs.camera(image, np.random.default_rng(s), strength).astype(int) - image
                ).mean()
                for s in range(20)
            ]
        )
        for strength in (0.1, 1.0)
    )
    assert kept < lost / 2


def test_a_raster_that_nearly_meets_the_sensors_beats_slowly():
    flat = np.full((256, 256, 3), 0.5, np.float32)
    close, far = (distil_inputs.raster(flat, pitch=p, depth=0.9)[:, :, 1] for p in (0.95, 0.5))
    spectrum = np.abs(np.fft.rfft(close.mean(0) - close.mean()))
    assert 10 <= int(spectrum.argmax()) <= 16  # 256 / 0.95 - 256 beats
    assert close.std() > 10 * far.std()
    assert close.mean() == pytest.approx(0.5, abs=0.01)


def test_one_colour_a_pixel_turns_fine_stripes_into_colour():
    flat = np.full((256, 256, 3), 0.5, np.float32)
    ruled = distil_inputs.raster(flat, pitch=1.9, depth=0.9)

    def colour(image):  # of what is left at 80 pixels
        small = image.reshape(64, 4, 64, 4, 3).mean((1, 3))
        return (small - small.mean(2, keepdims=True)).std()

    assert distil_inputs.mosaic(flat).std() < 0.01
    assert colour(distil_inputs.mosaic(ruled)) > 3 * colour(ruled)


def test_mixtures_hold_both_pictures():
    one, other = np.zeros((CROP, CROP, 3), np.uint8), np.full((CROP, CROP, 3), 200, np.uint8)
    rng = np.random.default_rng(1)
    assert sorted(np.unique(distil.mix(one, other, "cutmix", rng)).tolist()) == [0, 200]
    assert 0 < int(distil.mix(one, other, "mixup", rng)[0, 0, 0]) < 200


def test_agreement_is_counted_by_kind():
    teacher = np.array([-1, 2, -3, 4], np.float32)
    found = distil.agreement(
        teacher * np.array([1, 1, 1, -1], np.float32), teacher, np.array(["a", "a", "b", "b"])
    )
    assert found["a"]["correlation"] == pytest.approx(1)
    assert found["a"]["same"] == 1
    assert found["b"]["same"] == 0.5
    assert found["all"]["same"] == 0.75
    assert found["all"]["count"] == 4


@pytest.fixture
def stage(data, inputs, tmp_path, monkeypatch):
    for module in (distil, judgeable):
        monkeypatch.setattr(module, "inputs_of", lambda folder, pool: {"train": inputs, "dev": inputs})
    options = DistilOptions(
        epochs=9,
        pool=str(tmp_path / "pool"),
        steps=10,
        batch=16,
        fresh=4,
        first=24,
        dev_a_kind=2,
        forced_epochs=3,
        joint_epochs=3,
    )
    return DistilStage(options, data, seed=1)


def test_a_student_learns_the_function_of_a_handful(stage, tmp_path):
    stage.schedule = Schedule(9, 3e-3, weight_decay=0.01, warmup_epochs=0.5, ema=0.5, workers=0)
    fit(stage, tmp_path, None, "cpu")
    log = [json.loads(line) for line in (tmp_path / "distil.jsonl").read_text().splitlines()]
    by_teachers_maps, alone = log[:3], log[3:]
    for part in ("first", "middle", "last"):
        assert by_teachers_maps[-1][part] < 0.7 * by_teachers_maps[0][part]
    for part in ("embedding", "logits", "odds"):
        assert by_teachers_maps[-1][part] < 0.1 * by_teachers_maps[0][part]
        assert alone[-1][part] < alone[0][part]
    assert set(log[0]) >= {"correlation", "same", *(f"same_{kind}" for kind in KINDS)}


def test_apart_no_block_learns_from_the_one_after_it():
    torch.manual_seed(0)
    network, x = MiniFAS(), torch.rand(2, 3, CROP, CROP)
    network.maps(x, apart=True)[3].square().sum().backward()
    moved = [p.grad is not None for p in network.blocks[2].parameters()]
    assert not any(moved)
    assert all(p.grad is not None for p in network.blocks[3].up[0].parameters())
    assert all(torch.equal(a, b) for a, b in zip(network.maps(x), network.maps(x, apart=True), strict=True))


def test_only_the_third_answer_learns_what_is_no_face(data, inputs, stage, tmp_path):
    options = JudgeableOptions(epochs=4, pool=str(tmp_path), pictures=64, batch=16, dev_pictures=32)
    judge = JudgeableStage(options, data, seed=1)
    known = stage.network(None).state_dict()
    best, _ = checkpoint.load(fit(judge, tmp_path, known, "cpu"))
    changed = {name.split(".")[0] for name, t in best.items() if not torch.equal(t, known[name])}
    assert changed == {"strange"}
    log = [json.loads(line) for line in (tmp_path / "judgeable.jsonl").read_text().splitlines()]
    assert log[-1]["strange"] < log[0]["strange"]
    with pytest.raises(InputError, match="without a network"):
        judge.network(None)


def test_the_third_logit_wins_where_there_is_no_face():
    torch.manual_seed(0)
    network, x = MiniFAS().eval(), torch.rand(4, 3, CROP, CROP)
    two, strange = network(x)
    three = network.three(x)
    assert torch.equal(three[:, :2], two)
    assert ((three.argmax(1) == 2) == (strange[:, 0] > 0)).all()


def test_batches_are_the_same_again_and_others_in_another_epoch(stage):
    network = stage.network(None)
    first, wide, whole = stage.batches(1)[3]
    assert first.shape == (16, CROP, CROP, 3)
    assert wide.shape == (16, 3)
    assert whole.dtype == torch.bool
    again = DistilStage(stage.options, stage.folder, seed=1)
    other = again.network(None)
    assert torch.equal(again.batches(1)[3][0], first)
    assert not torch.equal(again.batches(2)[3][0], first)
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_a_recipe_names_the_stage_and_wrong_shares_are_refused(data, tmp_path):
    table = {"kind": "distil", "epochs": 1, "pool": str(tmp_path)}
    tables = [table, {"kind": "judgeable", "epochs": 1, "pool": str(tmp_path)}]
    found = stages_of({"network": "minifas", "stage": tables}, data)
    assert [type(stage) for stage in found] == [DistilStage, JudgeableStage]
    with pytest.raises(InputError, match="cutmix"):
        DistilOptions(epochs=1, pool="pool", cutmix=0.7, mixup=0.3)


def test_the_report_says_which_file_is_not_the_networks(tmp_path):
    file = tmp_path / "weights.safetensors"
    checkpoint.save(file, MiniFAS().half().state_dict(), {})
    assert isinstance(agreement.network_from("minifas", file), MiniFAS)
    with pytest.raises(InputError, match="does not hold the weights of padnet"):
        agreement.network_from("padnet", file)
