import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from torch import nn  # noqa: E402

from edge_sdk.errors import InputError  # noqa: E402
from edge_training.optimizer import Optimizer  # noqa: E402


def network():
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 16, 7)
    )
    return made.to(memory_format=torch.channels_last)


def step(made, optimizer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(8, 3, 8, 8, generator=generator)
    loss = nn.functional.cross_entropy(made(x), torch.arange(8) % 7)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def optimizer_of(made, **options):
    options = {"lr": 0.01, "weight_decay": 0.0, "factor": 1.0, **options}
    return Optimizer([{"params": list(made.parameters()), **options}])


def test_every_parameter_moves_and_the_loss_falls():
    made = network()
    before = [p.detach().clone() for p in made.parameters()]
    optimizer = optimizer_of(made)
    losses = [step(made, optimizer) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    assert all((a != b).any() for a, b in zip(before, made.parameters(), strict=True))


def test_a_kernels_update_is_nearly_orthogonal_and_as_large_as_the_learning_rate_says():
    made = network()
    kernel = made[0].weight
    before = kernel.detach().clone()
    step(made, optimizer_of(made, lr=0.01))
    moved = (kernel.detach() - before).permute(0, 2, 3, 1).flatten(1)
    singular = torch.linalg.svdvals(moved)
    # A channel that no gradient reaches behind its ReLU has no direction.
    taught = singular[singular > 1e-6]
    assert len(taught) > 10
    assert taught.max() < 2.5 * taught.min()
    # AdamW moves each number by about 0.2 of its learning rate (arXiv 2502.16982).
    assert float(moved.square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.3)


def test_depthwise_kernels_and_last_layers_go_to_adamw():
    made = network()
    optimizer = optimizer_of(made)
    step(made, optimizer)
    kinds = {name.split(".")[0] for name in optimizer.state()}
    assert kinds == {"adamw", "muon"}
    assert sum(name.startswith("muon.") for name in optimizer.state()) == 1


def test_groups_keep_what_the_loop_needs_to_set_their_rate():
    made = network()
    optimizer = optimizer_of(made, factor=0.3)
    assert {group["factor"] for group in optimizer.param_groups} == {0.3}
    before = [p.detach().clone() for p in made.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    step(made, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, made.parameters(), strict=True))


def test_a_restored_optimizer_goes_on_as_if_nothing_had_been():
    whole, parts = network(), network()
    first = optimizer_of(whole)
    for seed in range(4):
        step(whole, first, seed)
    second = optimizer_of(parts)
    for seed in range(2):
        step(parts, second, seed)
    third = optimizer_of(parts)
    third.restore(second.state())
    for seed in range(2, 4):
        step(parts, third, seed)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


def test_another_optimizers_state_is_refused():
    with pytest.raises(InputError, match="exp_avg"):
        optimizer_of(network()).restore({"0.exp_avg": torch.zeros(1)})


def test_a_kernel_whose_memory_cannot_be_shared_is_refused_instead_of_left_untrained():
    with pytest.raises(RuntimeError, match="view"):
        optimizer_of(network().to(memory_format=torch.contiguous_format))
