"""What every optimiser must do: torch's own steps, on any layout, and the same bits after a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from conviction.core.device import PrecisionName
from conviction.core.errors import UnknownName
from conviction.fit.checkpoint import load_checkpoint, save_checkpoint
from conviction.fit.optimizer import OPTIMIZERS, MuonConfig, OptimizerConfig, SgdConfig, build_optimizer
from conviction.nets import BlocksConfig, build_network

BETAS = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-4}
TORCH_BETAS = {"betas": (0.8, 0.95), "eps": 1e-4}
SLOW = {"foreach": False, "fused": False}


class TorchsMuonAndSgd:
    """torch's Muon on the kernels as matrices, and its SGD on the last matrix and all vectors."""

    def __init__(
        self, weights: Iterable[nn.Parameter], lr: float = 0.1, weight_decay: float = 0.0, **muons: Any
    ) -> None:
        trained = list(weights)
        self.kernels = [weight for weight in trained if weight.ndim > 1][:-1]
        self.matrices = [nn.Parameter(kernel.detach().flatten(1).clone()) for kernel in self.kernels]
        self.muon = torch.optim.Muon(self.matrices, lr=lr, weight_decay=weight_decay, **muons)
        rest = [weight for weight in trained if not any(weight is kernel for kernel in self.kernels)]
        self.sgd = torch.optim.SGD(rest, lr=lr, weight_decay=weight_decay, momentum=0.9, nesterov=True, **SLOW)
        (group,) = self.muon.param_groups
        adjustment = group["adjust_lr_fn"] or "original"
        shared = {name: group[name] for name in ("params", "lr", "weight_decay", "momentum", "nesterov")}
        self.param_groups = [{**shared, "num_steps": group["ns_steps"], "rate_adjustment": adjustment}]

    def zero_grad(self) -> None:
        for weight in (*self.kernels, *(weight for group in self.sgd.param_groups for weight in group["params"])):
            weight.grad = None

    def step(self) -> None:
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            matrix.grad = kernel.grad.flatten(1)
        self.muon.step()
        self.sgd.step()
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            kernel.data.copy_(matrix.data.view(kernel.shape))


# Settings beside the learning rate and the decay that differ from every default, and the same in torch's words.
BESIDE: dict[str, tuple[dict[str, Any], Callable[..., Any], dict[str, Any]]] = {
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
    "muon": (
        {
            "momentum": 0.8,
            "num_steps": 4,
            "rate_adjustment": "match_rms_adamw",
            "precision": "bfloat16",
            "rest_learning_rate": 0.003,
            "rest_weight_decay": 0.1,
        },
        TorchsMuonAndSgd,
        {"momentum": 0.8, "ns_steps": 4, "adjust_lr_fn": "match_rms_adamw"},
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


def step(network: nn.Module, optimizer: Any, number: int) -> float:
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

    def test_biases_may_go_faster_and_decay_as_before(self, name: str) -> None:
        kind = OPTIMIZERS[name].config
        settings = {"learning_rate": 0.001, "weight_decay": 0.5, "bias_rate": 4, "norm_bias_rate": 16}
        if name == "muon":
            settings |= {"rest_learning_rate": 0.001, "rest_weight_decay": 0.5}
        network = small_network()
        optimizer = build_optimizer(kind.model_validate(settings), network)
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        rates = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
        assert rates == {
            "blocks.block1.convolution.weight": (0.001, 0.5),
            "blocks.block1.convolution.bias": (0.004, 0.125),
            "blocks.block2.convolution.weight": (0.001, 0.5),
            "blocks.block2.normalization.weight": (0.001, 0.5),
            "blocks.block2.normalization.bias": (0.016, 0.03125),
            "dense.dense1.linear.weight": (0.001, 0.5),
            "dense.dense1.linear.bias": (0.004, 0.125),
            "classifier.weight": (0.001, 0.5),
            "classifier.bias": (0.004, 0.125),
        }
        # The first group's rate is the one that people see.
        assert names[id(optimizer.param_groups[0]["params"][0])] == "blocks.block1.convolution.weight"


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

    def test_a_faster_bias_by_hand(self) -> None:
        # The bias 1 has gradient 2: at 8 times the rate 0.1 and an eighth of the decay 0.5, 1 − 0.8·2 − 0.1·0.5·1.
        network = nn.Linear(1, 1)
        with torch.no_grad():
            network.bias.fill_(1)
        optimizer = build_optimizer(SgdConfig(learning_rate=0.1, momentum=0, weight_decay=0.5, bias_rate=8), network)
        (network(torch.tensor([[2.0]])) * 2).sum().backward()
        optimizer.step()
        assert network.bias.item() == pytest.approx(1 - 0.8 * 2 - 0.1 * 0.5 * 1)

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


class TestMuon:
    def test_where_only_the_classifier_trains_its_rate_is_shown(self) -> None:
        network = small_network()
        network.requires_grad_(False)
        network.classifier.requires_grad_(True)
        config = MuonConfig(learning_rate=0.02, rest_learning_rate=0.1, bias_rate=8)
        groups = build_optimizer(config, network).param_groups
        assert [group["lr"] for group in groups] == [0.1, 0.8]
        assert groups[0]["params"] == [network.classifier.weight]

    @pytest.mark.parametrize(
        ("wanted", "of_training", "expected"),
        [("auto", "float32", "float32"), ("auto", "bfloat16", "bfloat16"), ("float32", "bfloat16", "float32")],
    )
    def test_it_iterates_in_the_precision_of_the_training(
        self, wanted: PrecisionName, of_training: Literal["float32", "bfloat16"], expected: str
    ) -> None:
        optimizer = build_optimizer(MuonConfig(precision=wanted), small_network(), of_training)
        assert {group["dtype"] for group in optimizer.param_groups} == {expected}
