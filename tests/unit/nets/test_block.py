from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from conviction.core.errors import ConfigError, UnknownName
from conviction.nets.block import (
    STAGES,
    BlockConfig,
    BlocksConfig,
    NetworkConfig,
    PoolingConfig,
    build_network,
    first_layer_filters,
    num_parameters,
)
from conviction.nets.layer import ACTIVATIONS


def built(settings: dict[str, Any], input_shape: tuple[int, int, int] = (1, 4, 4), num_classes: int = 2) -> nn.Module:
    return build_network(BlocksConfig.model_validate(settings), input_shape, num_classes)


def layer_names(network: nn.Module) -> list[str]:
    return [type(module).__name__ for module in network.modules() if not list(module.children())]


class TestOrder:
    def test_stages_stand_in_the_order_given(self) -> None:
        order = ["pooling", "dropout", "activation", "convolution", "normalization"]
        block = {"filters": 2, "normalization": "batch", "pooling": {}, "dropout": 0.5, "order": order}
        network = built({"blocks": [block]})
        assert list(dict(network.blocks.block1.named_children())) == order

    def test_stages_that_are_off_are_left_out(self) -> None:
        network = built({"blocks": [{"filters": 2, "activation": "none"}]})
        assert list(dict(network.blocks.block1.named_children())) == ["convolution"]

    def test_a_normalisation_before_the_convolution_has_the_channels_that_come_in(self) -> None:
        order = ["normalization", "convolution", "activation", "pooling", "dropout"]
        network = built({"blocks": [{"filters": 7, "normalization": "batch", "order": order}]}, (3, 4, 4))
        assert network.blocks.block1.normalization.num_features == 3

    @pytest.mark.parametrize("order", [STAGES[:4], (*STAGES, "pooling"), (*STAGES[:4], "pooling")])
    def test_each_stage_stands_once(self, order: tuple[str, ...]) -> None:
        with pytest.raises(ValidationError, match=r"must name each of convolution, .* once"):
            BlockConfig.model_validate({"filters": 1, "order": order})

    def test_dense_layers_are_linear_normalisation_activation_dropout(self) -> None:
        dense = [{"units": 3, "normalization": "layer", "activation": "tanh", "dropout": 0.1}, {"units": 5}]
        network = built({"dense": dense})
        assert layer_names(network.dense) == ["Linear", "LayerNorm", "Tanh", "Dropout", "Linear", "ReLU"]
        assert network.classifier.in_features == 5


class TestSettings:
    def test_same_needs_an_odd_kernel_or_stride_one(self) -> None:
        with pytest.raises(ValidationError, match=r"odd kernel or stride 1, but got .*kernel_px=4, .*stride_px=2"):
            BlockConfig(filters=1, kernel_px=4, stride_px=2)

    def test_padding_of_a_pooling_is_at_most_half_its_window(self) -> None:
        assert PoolingConfig(size_px=4, padding_px=2).padding_px == 2
        with pytest.raises(ValidationError, match=r"2·padding_px <= size_px"):
            PoolingConfig(size_px=3, padding_px=2)

    @pytest.mark.parametrize(
        "settings",
        [
            {"filters": 0},
            {"filters": 1, "kernel_px": 0},
            {"filters": 1, "dropout": 1.0},
            {"filters": 1, "dropout": -0.1},
        ],
    )
    def test_senseless_numbers_are_refused(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            BlockConfig.model_validate(settings)

    def test_an_unknown_family_is_refused(self) -> None:
        with pytest.raises(UnknownName, match="Did you mean 'blocks'"):
            build_network(NetworkConfig(name="block"), (1, 4, 4), 2)


class TestSizes:
    @pytest.mark.parametrize("kernel_px", [1, 2, 3, 4, 5, 6])
    def test_same_padding_keeps_the_size_and_computes_what_torch_does(self, kernel_px: int) -> None:
        network = built({"blocks": [{"filters": 2, "kernel_px": kernel_px, "activation": "none"}]}, (3, 7, 5))
        images = torch.randn(2, 3, 7, 5)
        convolution = network.blocks.block1.convolution
        # torch pads an even kernel with one pixel more on the right and below, and a 2-D call on it warns.
        left, right = (kernel_px - 1) // 2, kernel_px // 2
        padded = nn.functional.pad(images, (left, right, left, right))
        expected = nn.functional.conv2d(padded, convolution.weight, convolution.bias)
        assert expected.shape == (2, 2, 7, 5)
        torch.testing.assert_close(network.blocks(images), expected)

    def test_an_even_kernel_with_same_padding_agrees_with_torchs_own(self) -> None:
        network = built({"blocks": [{"filters": 2, "kernel_px": 4, "activation": "none"}]}, (3, 7, 5))
        images = torch.randn(2, 3, 7, 5)
        convolution = network.blocks.block1.convolution
        with pytest.warns(UserWarning, match="even kernel"):
            expected = nn.functional.conv2d(images, convolution.weight, convolution.bias, padding="same")
        torch.testing.assert_close(network.blocks(images), expected)

    @pytest.mark.parametrize(("stride_px", "expected"), [(1, 7), (2, 4), (3, 3), (4, 2)])
    def test_same_padding_with_a_stride_divides_and_rounds_up(self, stride_px: int, expected: int) -> None:
        network = built({"blocks": [{"filters": 2, "kernel_px": 5, "stride_px": stride_px}]}, (1, 7, 7))
        assert network.blocks(torch.zeros(1, 1, 7, 7)).shape[2:] == (expected, expected)

    def test_a_pooling_without_stride_takes_its_window(self) -> None:
        network = built({"blocks": [{"filters": 1, "pooling": {"size_px": 3}}]}, (1, 9, 9))
        assert network.blocks(torch.zeros(1, 1, 9, 9)).shape[2:] == (3, 3)

    @pytest.mark.parametrize(("kind", "expected"), [("max", 9.0), ("average", (1 + 9 + 2 + 4) / 4)])
    def test_global_pooling_by_hand(self, kind: str, expected: float) -> None:
        network = built({"global_pooling": kind}, (1, 2, 2))
        pooled = network.blocks(torch.tensor([[[[1.0, 9.0], [2.0, 4.0]]]]))
        assert pooled.tolist() == [[[[expected]]]]
        assert network.classifier.in_features == 1

    @pytest.mark.parametrize(
        ("blocks", "side_px", "expected"),
        [
            ([{"filters": 1, "kernel_px": 5, "padding_px": 0}], 4, r"^network\.blocks\.0: a convolution of 5×5 .* 4×4"),
            ([{"filters": 1, "pooling": {}}] * 3, 4, r"^network\.blocks\.2: a pooling of 2×2 .* the 1×1 map"),
            (
                [{"filters": 1, "pooling": {}}, {"filters": 1, "kernel_px": 3, "padding_px": 0}],
                4,
                r"^network\.blocks\.1: a convolution of 3×3 .* the 2×2 map",
            ),
            (
                [{"filters": 1, "normalization": "layer"}],
                1,
                r"^network\.blocks\.0: a layer normalisation of one number",
            ),
        ],
    )
    def test_too_small_an_image_is_refused_with_the_blocks_path(
        self, blocks: list[dict[str, Any]], side_px: int, expected: str
    ) -> None:
        with pytest.raises(ConfigError, match=expected):
            built({"blocks": blocks}, (1, side_px, side_px))

    def test_a_narrow_image_is_refused_too(self) -> None:
        with pytest.raises(ConfigError, match="the 9×1 map"):
            built({"blocks": [{"filters": 1, "pooling": {}}]}, (1, 9, 1))


ACTIVATION_FIRST = ["activation", "convolution", "normalization", "pooling", "dropout"]


@pytest.mark.parametrize("name", ACTIVATIONS)
class TestActivations:
    def test_one_behind_another_leaves_the_gradient_right(self, name: str) -> None:
        for before in ACTIVATIONS:
            blocks = [
                {"filters": 2, "activation": before},
                {"filters": 2, "activation": name, "order": ACTIVATION_FIRST},
            ]
            network = built({"blocks": blocks})
            network(torch.randn(3, 1, 4, 4)).sum().backward()
            assert all(parameter.grad is not None for parameter in network.parameters())

    @pytest.mark.parametrize("order", [ACTIVATION_FIRST, ["dropout", *ACTIVATION_FIRST[:-1]]])
    def test_images_are_left_as_they_are(self, name: str, order: list[str]) -> None:
        network = built({"blocks": [{"filters": 2, "dropout": 0.5, "activation": name, "order": order}]}).eval()
        images = torch.randn(3, 1, 4, 4)
        kept = images.clone()
        network(images)
        assert torch.equal(images, kept)

    def test_the_gradient_of_the_images_can_be_taken(self, name: str) -> None:
        network = built({"blocks": [{"filters": 2, "activation": name, "order": ACTIVATION_FIRST}]}).eval()
        images = torch.randn(3, 1, 4, 4, requires_grad=True)
        network(images).sum().backward()
        assert images.grad is not None


class TestFirstLayer:
    def test_filters_of_a_convolution(self) -> None:
        network = built({"blocks": [{"filters": 6, "kernel_px": 5}, {"filters": 4}]}, (3, 8, 8))
        filters = first_layer_filters(network, (3, 8, 8))
        assert filters is not None
        assert filters.shape == (6, 3, 5, 5)
        assert torch.equal(filters, network.blocks.block1.convolution.weight)

    def test_filters_do_not_change_with_the_network(self) -> None:
        network = built({"blocks": [{"filters": 2}]})
        filters = first_layer_filters(network, (1, 4, 4))
        kept = filters.clone()
        with torch.no_grad():
            network.blocks.block1.convolution.weight.zero_()
        assert torch.equal(filters, kept)

    def test_units_of_a_dense_layer_are_laid_out_as_images(self) -> None:
        network = built({"dense": [{"units": 3}]}, (2, 4, 5))
        filters = first_layer_filters(network, (2, 4, 5))
        images = torch.randn(1, 2, 4, 5)
        answers = (filters * images).sum(dim=(1, 2, 3)) + network.dense.dense1.linear.bias
        torch.testing.assert_close(answers, network.dense.dense1.linear(images.flatten(1))[0])

    def test_none_where_the_first_layer_sees_no_pixels(self) -> None:
        assert first_layer_filters(built({"global_pooling": "max"}), (1, 4, 4)) is None
        assert first_layer_filters(nn.Sequential(nn.Flatten(), nn.ReLU()), (1, 4, 4)) is None


def test_parameters_are_counted_by_hand() -> None:
    network = built({"blocks": [{"filters": 2, "normalization": "batch"}], "dense": [{"units": 5}]}, (3, 4, 4), 7)
    # convolution (3·3·3 + 1)·2, normalisation 2·2, dense (2·4·4 + 1)·5, classifier (5 + 1)·7
    assert num_parameters(network) == 56 + 4 + 165 + 42


def test_channels_last_changes_the_layout_alone() -> None:
    network = built({"blocks": [{"filters": 4}]}, (3, 6, 6))
    images = torch.randn(2, 3, 6, 6)
    expected = network(images)
    network = network.to(memory_format=torch.channels_last)
    assert network.blocks.block1.convolution.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images.contiguous(memory_format=torch.channels_last)), expected)
