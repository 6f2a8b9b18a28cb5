"""What every optimiser must do: torch's own steps, on any layout, and the same bits after a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from conviction.core.errors import UnknownName
from conviction.fit.checkpoint import load_checkpoint, save_checkpoint
from conviction.fit.optimizer import OPTIMIZERS, OptimizerConfig, SgdConfig, build_optimizer
from conviction.nets import BlocksConfig, build_network

BETAS = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-4}
TORCH_BETAS = {"betas": (0.8, 0.95), "eps": 1e-4}
SLOW = {"foreach": False, "fused": False}
# Settings beside the learning rate and the decay that differ from every default, and the same in torch's words.
BESIDE: dict[str, tuple[dict[str, Any], Callable[..., Optimizer], dict[str, Any]]] = {
    "sgd": ({"momentum": 0.7, "nesterov": True}, torch.optim.SGD, {"momentum": 0.7, "nesterov": True, **SLOW}),
    "adam": ({**BETAS, "amsgrad": True}, torch.optim.Adam, {**TORCH_BETAS, "amsgrad": True, **SLOW}),
    "adamw": ({**BETAS, "amsgrad": True}, torch.optim.AdamW, {**TORCH_BETAS, "amsgrad": True, **SLOW}),
    "nadam": (
        {**BETAS, "decoupled_weight_decay": True},
        torch.optim.NAdam,
        {**TORCH_BETAS, "decoupled_weight_decay": True, "foreach": False},
    ),
    "radam": (
        {**BETAS, "decoupled_weight_decay": True},
        torch.optim.RAdam,
        {**TORCH_BETAS, "decoupled_weight_decay": True, "foreach": False},
    ),
    "adamax": (BETAS, torch.optim.Adamax, {**TORCH_BETAS, "foreach": False}),
    "rmsprop": (
        {"alpha": 0.9, "epsilon": 1e-3, "momentum": 0.6, "centered": True},
        torch.optim.RMSprop,
        {"alpha": 0.9, "eps": 1e-3, "momentum": 0.6, "centered": True, "foreach": False},
    ),
    "adagrad": ({"epsilon": 1e-3}, torch.optim.Adagrad, {"eps": 1e-3, "foreach": False}),
    "adafactor": (
        {"beta2_decay": -0.7, "epsilon": 1e-2, "clip_threshold": 2.0},
        torch.optim.Adafactor,
        {"beta2_decay": -0.7, "eps": (None, 1e-2), "d": 2.0, "foreach": False},
    ),
    "adadelta": ({"rho": 0.8, "epsilon": 1e-3}, torch.optim.Adadelta, {"rho": 0.8, "eps": 1e-3, "foreach": False}),
}
# No bias before the normalisation: its gradient is rounding noise, which Adam would blow up to whole steps.
NETWORK = BlocksConfig.model_validate(
    {
        "blocks": [{"filters": 4}, {"filters": 6, "bias": False, "normalization": "batch", "pooling": {}}],
        "dense": [{"units": 5}],
    }
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Equal bits need an equal division of the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small_network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(NETWORK, (3, 6, 6), 4).to(memory_format=torch.channels_last)


def step(network: nn.Module, optimizer: Optimizer, number: int) -> float:
    generator = torch.Generator().manual_seed(number)
    images = torch.randn(8, 3, 6, 6, generator=generator).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 4, (8,), generator=generator)
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(network(images), labels)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def weights(network: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in network.state_dict().values()]


def variations(name: str) -> list[OptimizerConfig]:
    """The defaults, and settings none of which is a default."""
    kind = OPTIMIZERS[name].config
    return [kind(), kind.model_validate({"learning_rate": 0.003, "weight_decay": 0.1, **BESIDE[name][0]})]


@pytest.mark.parametrize("name", OPTIMIZERS.names())
class TestEveryOptimizer:
    def test_steps_are_those_of_torch(self, name: str) -> None:
        beside, by_torch, torch_beside = BESIDE[name]
        config = OPTIMIZERS[name].config.model_validate({"learning_rate": 0.003, "weight_decay": 0.1, **beside})
        ours, theirs = small_network(), small_network()
        mine = build_optimizer(config, ours)
        reference = by_torch(theirs.parameters(), lr=0.003, weight_decay=0.1, **torch_beside)
        for number in range(5):
            step(ours, mine, number)
            step(theirs, reference, number)
        for found, expected in zip(weights(ours), weights(theirs), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        assert not torch.equal(weights(ours)[0], weights(small_network())[0])

    def test_defaults_are_those_of_torch_but_for_rate_decay_and_momentum(self, name: str) -> None:
        config = OPTIMIZERS[name].config()
        found = build_optimizer(config, small_network()).param_groups[0]
        expected = BESIDE[name][1](small_network().parameters()).param_groups[0]
        chosen = {"params", "lr", "weight_decay", "fused", "foreach", *(("momentum",) if name == "sgd" else ())}
        assert {key: found[key] for key in expected if key not in chosen} == {
            key: expected[key] for key in expected if key not in chosen
        }

    def test_the_loss_falls(self, name: str) -> None:
        network = small_network()
        kind = OPTIMIZERS[name].config
        optimizer = build_optimizer(kind(learning_rate=max(0.01, kind().learning_rate)), network)
        losses = [step(network, optimizer, 0) for _ in range(100)]
        assert losses[-1] < 0.6 * losses[0]

    @pytest.mark.parametrize("variation", [0, 1])
    def test_a_checkpoint_changes_no_bit(self, name: str, variation: int, tmp_path: Path) -> None:
        config = variations(name)[variation]
        whole, resumed = small_network(), small_network(seed=1)
        optimizer = build_optimizer(config, whole)
        for number in range(3):
            step(whole, optimizer, number)
        save_checkpoint(tmp_path / "checkpoint.safetensors", whole, optimizer, {"epoch": 3})
        fresh = build_optimizer(config, resumed)
        assert load_checkpoint(tmp_path / "checkpoint.safetensors", resumed, fresh) == {"epoch": 3}
        for number in range(3, 6):
            assert step(resumed, fresh, number) == step(whole, optimizer, number)
        assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(whole), strict=True))

    def test_a_checkpoint_of_a_checkpoint_is_the_same_file(self, name: str, tmp_path: Path) -> None:
        first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
        network = small_network()
        optimizer = build_optimizer(OPTIMIZERS[name].config(), network)
        step(network, optimizer, 0)
        save_checkpoint(first, network, optimizer, {"epoch": 1})
        load_checkpoint(first, network, optimizer)
        save_checkpoint(second, network, optimizer, {"epoch": 1})
        assert first.read_bytes() == second.read_bytes()

    def test_decay_may_spare_the_vectors(self, name: str) -> None:
        settings = {"learning_rate": 0.001, "weight_decay": 0.5, "decay_biases_and_norms": False}
        kind = OPTIMIZERS[name].config
        spared, undecayed, decayed = small_network(), small_network(), small_network()
        step(spared, build_optimizer(kind.model_validate(settings), spared), 0)
        step(undecayed, build_optimizer(kind.model_validate({**settings, "weight_decay": 0.0}), undecayed), 0)
        step(decayed, build_optimizer(kind.model_validate({**settings, "decay_biases_and_norms": True}), decayed), 0)
        for found, without, with_decay in zip(
            spared.parameters(), undecayed.parameters(), decayed.parameters(), strict=True
        ):
            torch.testing.assert_close(found, without if found.ndim == 1 else with_decay)


class TestWeightDecay:
    @pytest.mark.parametrize(("spare", "expected_bias"), [(True, 1 - 0.1 * 2), (False, 1 - 0.1 * (2 + 0.5 * 1))])
    def test_sgd_by_hand(self, spare: bool, expected_bias: float) -> None:
        # w ← w − lr·(g + λw) with lr = 0.1, λ = 0.5; the weight 3 has gradient 4, the bias 1 has gradient 2.
        network = nn.Linear(1, 1)
        with torch.no_grad():
            network.weight.fill_(3)
            network.bias.fill_(1)
        config = SgdConfig(learning_rate=0.1, momentum=0, weight_decay=0.5, decay_biases_and_norms=not spare)
        optimizer = build_optimizer(config, network)
        (network(torch.tensor([[2.0]])) * 2).sum().backward()
        optimizer.step()
        assert network.weight.item() == pytest.approx(3 - 0.1 * (4 + 0.5 * 3))
        assert network.bias.item() == pytest.approx(expected_bias)

    def test_frozen_weights_are_left_out(self) -> None:
        network = small_network()
        network.blocks.requires_grad_(False)
        optimizer = build_optimizer(SgdConfig(weight_decay=0.1, decay_biases_and_norms=False), network)
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        # Weights and biases of one dense layer and the classifier.
        assert len(trained) == 4
        assert all(parameter.requires_grad for parameter in trained)

    def test_no_parameter_is_in_both_groups_or_in_none(self) -> None:
        network = small_network()
        optimizer = build_optimizer(SgdConfig(weight_decay=0.1, decay_biases_and_norms=False), network)
        grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        assert sorted(grouped) == sorted(id(parameter) for parameter in network.parameters())


class TestSettings:
    def test_nesterov_needs_momentum(self) -> None:
        with pytest.raises(ValueError, match="momentum > 0"):
            SgdConfig(momentum=0, nesterov=True)

    def test_an_unknown_optimiser_is_refused(self) -> None:
        with pytest.raises(UnknownName, match="Did you mean 'adam"):
            build_optimizer(OptimizerConfig(name="adm"), small_network())
