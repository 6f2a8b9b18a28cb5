"""A network cut behind its frozen layers computes what the whole one does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from conviction.core.errors import ConfigError
from conviction.nets import BlocksConfig, TorchvisionConfig, build_network
from conviction.nets.cut import cut_behind_frozen
from conviction.nets.freezing import freeze

TWO_BLOCKS: dict[str, Any] = {
    "blocks": [{"filters": 4, "normalization": "batch", "pooling": {}}, {"filters": 6, "dropout": 0.5}],
    "global_pooling": "average",
    "dense": [{"units": 5, "dropout": 0.5}],
}


def of_blocks(last: str | int) -> nn.Module:
    return build_network(BlocksConfig.model_validate({**TWO_BLOCKS, "freeze": last}), (3, 8, 8), 3)


@pytest.mark.parametrize(
    ("last", "shape"),
    [
        # 8×8 halved by the pooling, which belongs to the block.
        (1, (4, 4, 4)),
        # Behind the second block comes the global pooling, without weights: 6 numbers instead of 6×4×4.
        (2, (6,)),
        ("all_but_head", (5,)),
    ],
)
def test_where_the_cut_goes(last: str | int, shape: tuple[int, ...]) -> None:
    assert cut_behind_frozen(of_blocks(last), (3, 8, 8)).shape == shape


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        # Dropout comes next, which is another one in each step: the maps pass the cut.
        ("squeezenet1_1", (512, 3, 3)),
        ("shufflenet_v2_x0_5", (1024,)),
        ("resnet18", (512,)),
    ],
)
def test_the_halves_of_a_model_of_torchvision(model: str, shape: tuple[int, ...]) -> None:
    network = build_network(TorchvisionConfig(model=model, freeze="all_but_head"), (3, 64, 64), 4).train()
    cut = cut_behind_frozen(network, (3, 64, 64))
    assert cut.shape == shape
    images = torch.randn(3, 3, 64, 64)
    # The same dropout in both.
    torch.manual_seed(5)
    expected = network(images)
    torch.manual_seed(5)
    with torch.no_grad():
        activations = cut.frozen(images)
    found = cut.rest(activations)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert torch.equal(cut.rest.eval()(activations), cut.rest(activations.reshape(3, shape[0], -1, 1)))
    assert {id(one) for one in cut.rest.parameters()} == {id(one) for one in network.parameters() if one.requires_grad}


def test_the_mode_of_the_network_is_put_back() -> None:
    network = of_blocks(1).train()
    network.get_submodule("dense").eval()
    before = [module.training for module in network.modules()]
    cut_behind_frozen(network, (3, 8, 8))
    assert [module.training for module in network.modules()] == before


def test_the_rest_follows_its_mode() -> None:
    cut = cut_behind_frozen(of_blocks(1).train(), (3, 8, 8))
    activations = torch.randn(64, 4, 4, 4)
    assert not torch.equal(cut.rest(activations), cut.rest(activations))
    cut.rest.eval()
    assert torch.equal(cut.rest(activations), cut.rest(activations))


class Skipping(nn.Module):
    """The picture itself reaches the head past the frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scaled = self.head(images.mean((2, 3)))
        return scaled + self.head(self.body(images).mean((2, 3)))


class Hesitating(nn.Module):
    """Drops by a function of its own, whose mode a graph would hold for good."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.dropout(self.body(images).mean((2, 3)), 0.5, self.training))


class Deciding(Skipping):
    """Looks at the values of its input."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images).mean((2, 3)) if images.sum() > 0 else images.mean((2, 3)))


@pytest.mark.parametrize(
    ("build", "reason"),
    [(Skipping, "no single tensor"), (Hesitating, "otherwise in training"), (Deciding, "cannot follow")],
)
def test_what_cannot_be_cut_says_why(build: type[nn.Module], reason: str) -> None:
    network = build()
    freeze(network, "body")
    with pytest.raises(ConfigError, match=reason):
        cut_behind_frozen(network, (3, 8, 8))
