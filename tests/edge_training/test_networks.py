import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from edge_training.export import PixelsIn, fuse  # noqa: E402
from edge_training.losses import DetectionLoss  # noqa: E402
from edge_training.networks.yolo import YOLO11n  # noqa: E402


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_parameters_are_the_published_ones_less_the_constant_bins():
    # Published counts include the 16 constants of the DFL expectation, which the decoder holds here.
    assert parameters(YOLO11n(7)) == 2_591_205 - 16
    assert parameters(YOLO11n(80)) == 2_624_080 - 16


@pytest.mark.parametrize("side", [64, 96])
def test_maps_have_one_cell_a_stride(side):
    boxes, scores = YOLO11n(7).eval()(torch.zeros(2, 3, side, side))
    assert [tuple(b.shape) for b in boxes] == [(2, 64, side // s, side // s) for s in (8, 16, 32)]
    assert [tuple(s.shape) for s in scores] == [(2, 7, side // s, side // s) for s in (8, 16, 32)]


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = YOLO11n(3)
    faces = torch.tensor([[[8.0, 8.0, 40.0, 40.0], [40.0, 40.0, 60.0, 60.0]]] * 2)
    classes = torch.eye(3)[[0, 2]].expand(2, -1, -1)
    loss, _ = DetectionLoss()(
        network(torch.rand(2, 3, 64, 64)), faces, classes, torch.ones(2, 2, dtype=torch.bool)
    )
    loss.backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_folding_batch_norm_changes_no_answer():
    torch.manual_seed(0)
    network = YOLO11n(7)
    for _ in range(3):
        network(torch.rand(4, 3, 64, 64))  # batch statistics other than 0 and 1
    network.eval()
    pixels = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        before = PixelsIn(network)(pixels)
        after = PixelsIn(fuse(network))(pixels)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_the_deployed_graph_takes_pixels_and_gives_maps_cell_by_cell():
    outputs = PixelsIn(YOLO11n(7).eval())(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert [tuple(o.shape) for o in outputs] == [
        (1, 8, 8, 64),
        (1, 8, 8, 7),
        (1, 4, 4, 64),
        (1, 4, 4, 7),
        (1, 2, 2, 64),
        (1, 2, 2, 7),
    ]
