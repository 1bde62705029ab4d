import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from edge_training.export import DeployedGraph, fuse, round_to_half  # noqa: E402
from edge_training.losses import DetectionLoss  # noqa: E402
from edge_training.networks import CLASSIFIERS, DETECTORS, pad  # noqa: E402
from edge_training.networks.gmenet import GMENet  # noqa: E402
from edge_training.networks.yolo import Attention  # noqa: E402


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(params=DETECTORS)
def detector(request):
    return DETECTORS[request.param]


@pytest.mark.parametrize(
    ("name", "classes", "published"),
    [
        ("yolo11n", 7, 2_591_205),
        ("yolo11n", 80, 2_624_080),
        ("yolo12n", 7, 2_521_029),
        ("yolo12n", 80, 2_553_904),
    ],
)
def test_parameters_are_the_published_ones_less_the_constant_bins(name, classes, published):
    # Published counts include the 16 constants of the DFL expectation, which the decoder holds here.
    assert parameters(DETECTORS[name](classes)) == published - 16


@pytest.mark.parametrize("side", [64, 96])
def test_maps_have_one_cell_a_stride(detector, side):
    boxes, scores = detector(7).eval()(torch.zeros(2, 3, side, side))
    assert [tuple(b.shape) for b in boxes] == [(2, 64, side // s, side // s) for s in (8, 16, 32)]
    assert [tuple(s.shape) for s in scores] == [(2, 7, side // s, side // s) for s in (8, 16, 32)]


def test_gradients_reach_every_parameter(detector):
    torch.manual_seed(0)
    network = detector(3)
    faces = torch.tensor([[[8.0, 8.0, 40.0, 40.0], [40.0, 40.0, 60.0, 60.0]]] * 2)
    classes = torch.eye(3)[[0, 2]].expand(2, -1, -1)
    loss, _ = DetectionLoss()(
        network(torch.rand(2, 3, 64, 64)), faces, classes, torch.ones(2, 2, dtype=torch.bool)
    )
    loss.backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_folding_batch_norm_changes_no_answer(detector):
    torch.manual_seed(0)
    network = detector(7)
    for _ in range(3):
        network(torch.rand(4, 3, 64, 64))  # batch statistics other than 0 and 1
    network.eval()
    pixels = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        before = DeployedGraph(network)(pixels)
        after = DeployedGraph(fuse(network))(pixels)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_a_graphs_weights_are_held_by_half_precision_and_stay_close():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
    before = {name: p.clone() for name, p in fuse(network).named_parameters()}
    for name, after in round_to_half(network).named_parameters():
        assert after.dtype == torch.float32
        torch.testing.assert_close(after, before[name], rtol=2**-11, atol=1e-7)
        assert (after.half().float() == after).all() == (after.ndim > 1)


def test_the_deployed_graph_takes_pixels_and_gives_maps_cell_by_cell(detector):
    outputs = DeployedGraph(detector(7).eval())(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert [tuple(o.shape) for o in outputs] == [
        (1, 8, 8, 64),
        (1, 8, 8, 7),
        (1, 4, 4, 64),
        (1, 4, 4, 7),
        (1, 2, 2, 64),
        (1, 2, 2, 7),
    ]


def test_attention_reaches_its_own_area_and_no_other():
    torch.manual_seed(0)
    attention = Attention(64, 2, key_ratio=1.0, positional=1, areas=4).eval()
    x = torch.rand(1, 64, 8, 6)
    changed = x.clone()
    changed[:, :, 3, 2] += 1  # in the second of four strips of two rows
    with torch.inference_mode():
        difference = (attention(changed) - attention(x)).abs().amax(1)[0]
    assert (difference[2:4] > 0).all()
    assert (difference[:2] == 0).all()
    assert (difference[4:] == 0).all()


def test_one_area_is_ordinary_attention():
    torch.manual_seed(0)
    attention = Attention(64, 2, key_ratio=0.5).eval()
    x = torch.rand(2, 64, 4, 6)
    with torch.inference_mode():
        q, k, v = attention.qkv(x).reshape(2, 2, 64, 24).split((16, 16, 32), 2)
        weights = torch.einsum("bhcn,bhcm->bhnm", q, k).div(4).softmax(-1)
        mixed = torch.einsum("bhnm,bhcm->bhcn", weights, v)
        expected = attention.proj(mixed.reshape(2, 64, 4, 6) + attention.positional(v.reshape(2, 64, 4, 6)))
        torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_answers_twice_and_both_answers_teach_all_of_it(name):
    torch.manual_seed(0)
    network = CLASSIFIERS[name](0.2)
    side = 64 if name in DETECTORS else 48
    label, votes = network(torch.rand(2, 3, side, side))
    assert label.shape == votes.shape == (2, 7)
    (label.square().sum() + votes.square().sum()).backward()
    taught = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    assert [n for n, p in taught if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_gmenet_is_small_and_shows_the_attention_of_every_block():
    network = GMENet().eval()
    assert parameters(network) <= 1_500_000
    with torch.inference_mode():
        *_, maps = network.with_attention(torch.rand(2, 3, 48, 48))
        again = network(torch.rand(2, 3, 48, 48))
    assert len(again) == 2
    assert [tuple(m.shape[1:]) for m in maps[::2]] == [(c, 1, 1) for c in (32, 32, 64, 64, 64, 128, 128)]
    assert [tuple(m.shape[1:]) for m in maps[1::2]] == [(1, s, s) for s in (24, 24, 12, 12, 12, 6, 6)]


@pytest.mark.parametrize(("attention", "global_branch"), [(False, True), (True, False), (False, False)])
def test_gmenets_ablations_have_fewer_parts(attention, global_branch):
    network = GMENet(attention=attention, global_branch=global_branch).eval()
    label, _, maps = network.with_attention(torch.rand(1, 3, 48, 48))
    assert label.shape == (1, 7)
    assert bool(maps) == attention
    assert parameters(network) < parameters(GMENet())


def test_gmenet_looks_at_brightness_not_at_colour():
    network = GMENet().eval()
    grey = torch.rand(1, 1, 48, 48).expand(-1, 3, -1, -1)
    tinted = grey + torch.tensor([0.1, -0.0299 / 0.587, 0.0]).reshape(1, 3, 1, 1)
    with torch.inference_mode():
        torch.testing.assert_close(network(grey)[0], network(tinted)[0], atol=1e-4, rtol=1e-3)


def test_a_halving_convolution_answers_the_same_in_training_as_deployed():
    halving = pad.Halving(4)
    x = torch.rand(2, 4, 10, 8, requires_grad=True)
    trained, deployed = halving.train()(x), halving.eval()(x)
    torch.testing.assert_close(trained, deployed)
    (gradient,) = torch.autograd.grad(trained.square().sum(), x, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(deployed.square().sum(), x)[0])
