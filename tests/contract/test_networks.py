"""What every network must do: each entry of the registry with its defaults, and each preset."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from conviction.core import rng
from conviction.fit.checkpoint import load_weights, save_weights
from conviction.nets import NETWORKS, PRESETS, NetworkConfig, build_network, expand_preset
from conviction.nets.block import num_parameters

INPUT_SHAPE = (3, 32, 32)
NUM_CLASSES = 7
# Settings of the entries that have some without a default.
NEEDED = {"torchvision": {"model": "shufflenet_v2_x0_5"}}
CONFIGS = {
    **{entry.name: entry.config.model_validate(NEEDED.get(entry.name, {})) for entry in NETWORKS},
    **{name: NETWORKS["blocks"].config.model_validate(expand_preset(name)) for name in PRESETS},
}


def seeded(config: NetworkConfig, seed: int = 0) -> nn.Module:
    with rng.torch_default(seed, "initialisation"):
        return build_network(config, INPUT_SHAPE, NUM_CLASSES)


def images(count: int) -> Tensor:
    return torch.randn(count, *INPUT_SHAPE, generator=torch.Generator().manual_seed(1))


def is_identity(kernels: Tensor) -> bool:
    """Whether every filter passes one channel on, as Dirac initialisation makes as many as there are channels."""
    return kernels.ndim == 4 and len(kernels) <= kernels.shape[1] and bool((kernels.flatten(1).sum(dim=1) == 1).all())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
class TestEveryNetwork:
    def test_a_logit_for_each_image_and_class(self, config: NetworkConfig) -> None:
        logits = seeded(config)(images(3))
        assert logits.shape == (3, NUM_CLASSES)
        assert logits.dtype == torch.float32

    def test_every_parameter_gets_a_gradient(self, config: NetworkConfig) -> None:
        network = seeded(config)
        nn.functional.cross_entropy(network(images(4)), torch.tensor([0, 1, 2, 3])).backward()
        trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert [name for name, parameter in trained.items() if not parameter.grad.any()] == []
        frozen = [parameter.grad for parameter in network.parameters() if not parameter.requires_grad]
        assert frozen == [None] * len(frozen)

    def test_the_seed_decides_the_weights(self, config: NetworkConfig) -> None:
        first, same, other = seeded(config), seeded(config), seeded(config, seed=1)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
        assert not any(
            torch.equal(a, b)
            for a, b in zip(first.parameters(), other.parameters(), strict=True)
            if a.ndim > 1 and not is_identity(a)
        )

    def test_weights_come_back_from_a_file(self, config: NetworkConfig, tmp_path: Path) -> None:
        saved, loaded = seeded(config).eval(), seeded(config, seed=1).eval()
        save_weights(tmp_path / "weights.safetensors", saved, {"epoch": 3})
        assert load_weights(tmp_path / "weights.safetensors", loaded) == {"epoch": 3}
        with torch.no_grad():
            assert torch.equal(loaded(images(2)), saved(images(2)))

    def test_an_image_does_not_depend_on_its_neighbours(self, config: NetworkConfig) -> None:
        network = seeded(config).eval()
        with torch.no_grad():
            torch.testing.assert_close(network(images(4))[2:3], network(images(4)[2:3]))

    def test_images_are_left_as_they_are(self, config: NetworkConfig) -> None:
        given = images(2)
        seeded(config)(given)
        assert torch.equal(given, images(2))

    def test_one_step_along_the_gradient_lowers_the_loss(self, config: NetworkConfig) -> None:
        network, labels = seeded(config).eval(), torch.tensor([0, 1, 2, 3])
        before = nn.functional.cross_entropy(network(images(4)), labels)
        before.backward()
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        squared = sum(parameter.grad.square().sum() for parameter in trained)
        with torch.no_grad():
            for parameter in trained:
                parameter -= 0.01 / squared * parameter.grad
            after = nn.functional.cross_entropy(network(images(4)), labels)
        # To first order the loss falls by rate · |gradient|² = 0.01.
        assert (before - after).item() == pytest.approx(0.01, rel=0.2)

    def test_channels_last_gives_the_same_logits(self, config: NetworkConfig) -> None:
        network = seeded(config).eval()
        with torch.no_grad():
            expected = network(images(2))
            found = network.to(memory_format=torch.channels_last)(
                images(2).contiguous(memory_format=torch.channels_last)
            )
        torch.testing.assert_close(found, expected)

    def test_parameters_are_those_that_the_state_holds(self, config: NetworkConfig) -> None:
        network = seeded(config)
        buffers = sum(buffer.numel() for buffer in network.buffers())
        assert num_parameters(network) == sum(tensor.numel() for tensor in network.state_dict().values()) - buffers
