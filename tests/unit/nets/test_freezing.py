"""What freezing leaves to train, by hand-made oracles."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from conviction.core.errors import ConfigError, UnknownName
from conviction.fit.optimizer import AdamWConfig, build_optimizer
from conviction.nets import BlocksConfig, TorchvisionConfig, build_network
from conviction.nets.freezing import freeze, head_of, is_frozen

BLOCKS = BlocksConfig.model_validate(
    {
        "blocks": [{"filters": 4, "normalization": "batch", "dropout": 0.5}, {"filters": 5, "normalization": "batch"}],
        "dense": [{"units": 6, "dropout": 0.5}],
    }
)


def trained_parts(network: nn.Module) -> set[str]:
    return {name.rpartition(".")[0] for name, one in network.named_parameters() if one.requires_grad}


def blocks(last: str | int) -> nn.Module:
    return build_network(BLOCKS.model_copy(update={"freeze": last}), (3, 8, 8), 3)


@pytest.mark.parametrize(
    ("last", "trained"),
    [
        (1, {"blocks.block2.convolution", "blocks.block2.normalization", "dense.dense1.linear", "classifier"}),
        (2, {"dense.dense1.linear", "classifier"}),
        ("blocks.block1.convolution", {
            "blocks.block1.normalization", "blocks.block2.convolution", "blocks.block2.normalization",
            "dense.dense1.linear", "classifier",
        }),
        ("blocks", {"dense.dense1.linear", "classifier"}),
        ("all_but_head", {"classifier"}),
    ],
)  # fmt: skip
def test_what_is_left_to_train(last: str | int, trained: set[str]) -> None:
    assert trained_parts(blocks(last)) == trained


@pytest.mark.parametrize(
    ("model", "head"),
    [
        ("squeezenet1_1", "classifier.1"),
        ("shufflenet_v2_x0_5", "fc"),
        ("alexnet", "classifier.6"),
        ("mobilenet_v3_small", "classifier.3"),
    ],
)
def test_the_head_of_a_family(model: str, head: str) -> None:
    network = build_network(TorchvisionConfig(model=model, freeze="all_but_head"), (3, 64, 64), 7)
    assert head_of(network) == head
    assert trained_parts(network) == {head}
    assert len(network.get_submodule(head).weight) == 7


def test_a_class_token_is_frozen_with_the_layers_behind_it() -> None:
    network = build_network(
        TorchvisionConfig(model="vit_b_32", freeze="encoder.layers.encoder_layer_0"), (3, 224, 224), 2
    )
    own = {name for name, one in network.named_parameters() if not one.requires_grad}
    assert {"class_token", "encoder.pos_embedding", "conv_proj.weight"} <= own
    assert not any(name.startswith("encoder.layers.encoder_layer_1.") for name in own)


def test_frozen_layers_stay_in_evaluation_mode_and_keep_their_statistics() -> None:
    network = blocks(1).train()
    before = copy.deepcopy(network.state_dict())
    for _ in range(3):
        network(torch.randn(8, 3, 8, 8)).sum().backward()
    frozen = network.get_submodule("blocks.block1")
    assert not any(module.training for module in frozen.modules())
    assert network.get_submodule("blocks.block2.normalization").training
    for name, tensor in network.state_dict().items():
        if name.startswith("blocks.block1."):
            assert torch.equal(tensor, before[name]), name
    assert int(network.state_dict()["blocks.block2.normalization.num_batches_tracked"]) == 3
    assert all(parameter.grad is None for parameter in frozen.parameters())


def test_dropout_before_the_head_still_drops() -> None:
    network = build_network(TorchvisionConfig(model="squeezenet1_1", freeze="all_but_head"), (3, 32, 32), 2).train()
    assert network.get_submodule("classifier.0").training
    assert not is_frozen(network.get_submodule("classifier.0"))
    assert is_frozen(network.get_submodule("features.12.expand3x3"))


def test_the_optimiser_holds_no_state_of_frozen_layers_and_does_not_let_them_decay() -> None:
    network = blocks("all_but_head")
    before = copy.deepcopy(network.state_dict())
    optimizer = build_optimizer(AdamWConfig(learning_rate=0.1, weight_decay=0.5), network)
    network(torch.randn(4, 3, 8, 8)).sum().backward()
    optimizer.step()
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert len(optimizer.state) == 2


def test_a_copy_is_frozen_by_itself() -> None:
    copied = copy.deepcopy(blocks(1)).train()
    assert not copied.get_submodule("blocks.block1.normalization").training


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (3, "network.freeze <= 2"),
        ("blocks.block3", "Did you mean 'blocks.block"),
        ("classifier", "nothing would be left to train"),
    ],
)
def test_what_cannot_be_frozen(last: str | int, says: str) -> None:
    with pytest.raises((ConfigError, UnknownName), match=says):
        blocks(last)


def test_an_unknown_layer_of_a_large_network_is_answered_with_all_but_head() -> None:
    """SqueezeNet has more layers than a message lists."""
    with pytest.raises(UnknownName, match=r"Known, of \d+: all_but_head, "):
        build_network(TorchvisionConfig(model="squeezenet1_1", freeze="features.99"), (3, 64, 64), 2)


def test_blocks_are_of_networks_of_blocks() -> None:
    with pytest.raises(ConfigError, match="a number of blocks, and this network has none"):
        freeze(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), 1)


def test_a_head_alone_has_nothing_to_freeze() -> None:
    with pytest.raises(ConfigError, match="no weights before its head"):
        freeze(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), "all_but_head")
