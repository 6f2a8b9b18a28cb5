from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import ValidationError
from torch import Tensor, nn

from conviction.core import rng
from conviction.core.errors import ConfigError
from conviction.nets.bias_epochs import set_trained
from conviction.nets.block import BlockConfig, BlocksConfig, build_network
from conviction.nets.initialization import initialize_from_images, needs_images, patch_covariance, whitening_kernels

WHITENING: dict[str, Any] = {"filters": 24, "kernel_px": 2, "padding_px": 0, "initialization": "whitening"}


def built(*blocks: dict[str, Any], input_shape: tuple[int, int, int] = (3, 8, 8), **others: Any) -> nn.Module:
    config = BlocksConfig.model_validate({"blocks": list(blocks), **others})
    with rng.torch_default(0, "initialisation"):
        return build_network(config, input_shape, 4)


def textures(count: int = 40, side_px: int = 9) -> Tensor:
    """Images whose neighbouring pixels and channels go together, with means that are not 0."""
    drawn = np.random.default_rng(0)
    noise = drawn.normal(size=(count, 3, side_px + 2, side_px + 2))
    smooth = sliding_window_view(noise, (3, 3), axis=(2, 3)).mean(axis=(4, 5))
    mixed = np.einsum("dc,bchw->bdhw", np.array([[1.0, 0.8, 0.6], [0.0, 0.5, 0.3], [0.0, 0.0, 0.2]]), smooth)
    return torch.tensor(mixed + np.array([0.5, -1.0, 2.0])[:, None, None], dtype=torch.float32)


def patches_by_numpy(images: Tensor, height_px: int, width_px: int) -> np.ndarray:
    """All patches (number, values), each in the order C, h, w."""
    windows = sliding_window_view(images.double().numpy(), (height_px, width_px), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, images.shape[1] * height_px * width_px)


class TestDirac:
    @pytest.mark.parametrize("kernel_px", [1, 3, 5])
    @pytest.mark.parametrize("filters", [2, 3])
    def test_channels_go_through_a_block_unchanged(self, kernel_px: int, filters: int) -> None:
        block = {"filters": filters, "kernel_px": kernel_px, "initialization": "dirac", "bias": False}
        images = torch.rand(2, 3, 8, 8)
        assert torch.equal(built(block).blocks(images), images[:, :filters])

    def test_filters_beyond_the_channels_are_as_without_it(self) -> None:
        plain, dirac = built({"filters": 7}), built({"filters": 7, "initialization": "dirac"})
        weight = dirac.blocks.block1.convolution.weight
        expected = torch.zeros(3, 3, 3, 3)
        expected[range(3), range(3), 1, 1] = 1
        assert torch.equal(weight[:3], expected)
        assert torch.equal(weight[3:], plain.blocks.block1.convolution.weight[3:])
        # Nothing was drawn or left out, so that what is initialised behind it is the same.
        assert torch.equal(dirac.classifier.weight, plain.classifier.weight)

    def test_it_trains(self) -> None:
        assert built({"filters": 7, "initialization": "dirac"}).blocks.block1.convolution.weight.requires_grad

    @pytest.mark.parametrize("kernel_px", [2, 4])
    def test_an_even_kernel_has_no_middle(self, kernel_px: int) -> None:
        with pytest.raises(ValidationError, match=f"dirac` needs an odd kernel, but got kernel_px={kernel_px}"):
            BlockConfig(filters=3, kernel_px=kernel_px, initialization="dirac")


class TestPatchCovariance:
    @pytest.mark.parametrize("size_px", [(2, 2), (3, 2), (1, 1)])
    def test_it_is_numpys(self, size_px: tuple[int, int]) -> None:
        images = textures()
        expected = np.cov(patches_by_numpy(images, *size_px), rowvar=False, ddof=0)
        found = patch_covariance([images[:7], images[7:30], images[30:]], size_px)
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)

    def test_any_memory_layout(self) -> None:
        images = textures()
        last = images.contiguous(memory_format=torch.channels_last)
        assert torch.equal(patch_covariance([last], (2, 2)), patch_covariance([images], (2, 2)))

    def test_by_hand(self) -> None:
        # Patches of 1×2 in the rows 0 0 2 and 4 4 2: (0, 0), (0, 2), (4, 4), (4, 2), with means 2 and 2.
        images = torch.tensor([[[[0.0, 0.0, 2.0], [4.0, 4.0, 2.0]]]])
        assert patch_covariance([images], (1, 2)).tolist() == [[4.0, 2.0], [2.0, 2.0]]


class TestWhitening:
    def network(self, epsilon: float = 5e-4, filters: int = 24) -> nn.Module:
        network = built({**WHITENING, "filters": filters, "whitening_epsilon": epsilon, "bias": False})
        initialize_from_images(network, [textures()])
        return network

    def response(self, network: nn.Module) -> np.ndarray:
        """What the convolution says of every patch (number, filters)."""
        with torch.no_grad():
            maps = network.blocks.block1.convolution(textures()).double()
        return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).numpy()

    def test_what_comes_out_is_white(self) -> None:
        found = np.cov(self.response(self.network(epsilon=1e-12))[:, :12], rowvar=False, ddof=0)
        np.testing.assert_allclose(found, np.eye(12), rtol=0, atol=2e-5)

    def test_epsilon_damps_small_variances(self) -> None:
        found = np.cov(self.response(self.network(epsilon=0.05))[:, :12], rowvar=False, ddof=0)
        variances = np.linalg.eigvalsh(np.cov(patches_by_numpy(textures(), 2, 2), rowvar=False, ddof=0))[::-1]
        assert variances[-1] < 0.05 < variances[0]
        np.testing.assert_allclose(found, np.diag(variances / (variances + 0.05)), rtol=0, atol=2e-5)

    def test_the_second_half_is_the_negative_of_the_first(self) -> None:
        weight = self.network().blocks.block1.convolution.weight
        assert torch.equal(weight[12:], -weight[:12])

    def test_fewer_filters_take_the_largest_variances(self) -> None:
        all_kernels, few = self.network().blocks.block1.convolution, self.network(filters=6).blocks.block1.convolution
        torch.testing.assert_close(few.weight, torch.cat((all_kernels.weight[:3], all_kernels.weight[12:15])))

    def test_signs_are_not_left_to_the_decomposition(self) -> None:
        for kernel in self.network().blocks.block1.convolution.weight[:12]:
            assert kernel.flatten()[kernel.abs().argmax()] > 0

    def test_images_of_one_colour_give_finite_kernels(self) -> None:
        kernels = whitening_kernels(patch_covariance([torch.full((2, 3, 4, 4), 0.3)], (2, 2)), 24, 4e-4)
        # No variance at all: each direction over √0.0004 = 0.02.
        torch.testing.assert_close(kernels.norm(dim=1), torch.full((24,), 50.0, dtype=torch.float64), rtol=1e-6, atol=0)

    def test_biases_and_other_layers_are_left_alone(self) -> None:
        network = built(WHITENING, {"filters": 4})
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        initialize_from_images(network, [textures()])
        changed = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])]
        assert changed == ["blocks.block1.convolution.weight"]

    def test_networks_without_it_need_no_images(self) -> None:
        plain = built({"filters": 4})
        assert (needs_images(plain), needs_images(built(WHITENING)), needs_images(nn.Linear(2, 2))) == (
            False,
            True,
            False,
        )
        before = plain.blocks.block1.convolution.weight.clone()
        initialize_from_images(plain, [textures()])
        assert torch.equal(plain.blocks.block1.convolution.weight, before)

    def test_no_images(self) -> None:
        with pytest.raises(ValueError, match="no image"):
            initialize_from_images(built(WHITENING), [])

    def test_more_filters_than_directions_are_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"^network\.blocks\.0: .* at most 24 filters .* filters=26"):
            built({**WHITENING, "filters": 26})
        with pytest.raises(ConfigError, match=r"at most 8 filters from patches of 2×2 in 1 channels"):
            built(WHITENING, input_shape=(1, 8, 8))

    def test_an_odd_number_of_filters_is_refused(self) -> None:
        with pytest.raises(ValidationError, match=r"even number of filters.* filters=23"):
            BlockConfig.model_validate({**WHITENING, "filters": 23})

    @pytest.mark.parametrize(
        "blocks",
        [
            [{"filters": 4}, WHITENING],
            [{**WHITENING, "order": ["activation", "convolution", "normalization", "pooling", "dropout"]}],
        ],
    )
    def test_nothing_may_come_before_it(self, blocks: list[dict[str, Any]]) -> None:
        with pytest.raises(ValidationError, match=f"stands in blocks.{len(blocks) - 1}"):
            BlocksConfig.model_validate({"blocks": blocks})


class TestFrozen:
    def test_kernels_stay_and_the_bias_trains(self) -> None:
        convolution = built({"filters": 4, "frozen": True}).blocks.block1.convolution
        assert (convolution.weight.requires_grad, convolution.bias.requires_grad) == (False, True)

    def test_a_bias_trains_in_its_epochs(self) -> None:
        network = built({"filters": 4, "bias_epochs": 2}, {"filters": 4})
        first, second = network.blocks.block1.convolution, network.blocks.block2.convolution
        found = []
        # Out of order too, as a resumed run begins anywhere.
        for epoch in (1, 2, 3, 4, 1):
            set_trained(network, epoch)
            found.append(first.bias.requires_grad)
            assert first.weight.requires_grad
            assert second.bias.requires_grad
        assert found == [True, True, False, False, True]

    def test_epochs_of_a_bias_that_is_not_there(self) -> None:
        with pytest.raises(ValidationError, match=r"`bias_epochs` needs `bias: true`, but got bias_epochs=3"):
            BlockConfig(filters=4, bias=False, bias_epochs=3)


class TestNormalization:
    @pytest.mark.parametrize("kind", ["batch", "layer"])
    def test_without_scale_it_only_shifts(self, kind: str) -> None:
        layer = built({"filters": 4, "normalization": kind, "normalization_scale": False}).blocks.block1.normalization
        assert torch.equal(layer.weight, torch.ones(4))
        assert (layer.weight.requires_grad, layer.bias.requires_grad) == (False, True)

    def test_momentum_is_the_share_of_the_new_batch(self) -> None:
        block = {"filters": 1, "kernel_px": 1, "bias": False, "normalization": "batch", "normalization_momentum": 0.4}
        network = built(block, input_shape=(1, 1, 2)).train()
        with torch.no_grad():
            network.blocks.block1.convolution.weight.fill_(1)
        network.blocks(torch.tensor([[[[2.0, 4.0]]], [[[6.0, 8.0]]]]))
        # Mean 5, unbiased variance 20 / 3; they begin at 0 and 1.
        layer = network.blocks.block1.normalization
        assert layer.running_mean.tolist() == pytest.approx([0.4 * 5])
        assert layer.running_var.tolist() == pytest.approx([0.6 * 1 + 0.4 * 20 / 3])

    @pytest.mark.parametrize("kind", ["batch", "layer"])
    def test_epsilon_by_hand(self, kind: str) -> None:
        block = {"filters": 1, "kernel_px": 1, "bias": False, "activation": "none", "normalization": kind}
        network = built({**block, "normalization_epsilon": 0.75}, input_shape=(1, 1, 2)).train()
        with torch.no_grad():
            network.blocks.block1.convolution.weight.fill_(1)
        # Mean 2 and variance 0.25: ±0.5 / √(0.25 + 0.75).
        assert network.blocks(torch.tensor([[[[1.5, 2.5]]]])).flatten().tolist() == pytest.approx([-0.5, 0.5])

    @pytest.mark.parametrize(
        ("key", "value", "kind"),
        [
            ("normalization_scale", False, "none"),
            ("normalization_scale", False, "local_response"),
            ("normalization_epsilon", 1e-3, "local_response"),
            ("normalization_momentum", 0.4, "none"),
            ("normalization_momentum", 0.4, "layer"),
        ],
    )
    def test_settings_that_a_normalisation_does_not_have(self, key: str, value: float, kind: str) -> None:
        expected = f"`{key}` is a setting of `normalization`: `batch`.* but got {key}={value}, normalization='{kind}'"
        with pytest.raises(ValidationError, match=expected):
            BlockConfig.model_validate({"filters": 4, "normalization": kind, key: value})


class TestClassifier:
    def test_logits_are_scaled(self) -> None:
        images = torch.rand(2, 3, 8, 8)
        plain, scaled = built({"filters": 4}), built({"filters": 4}, logit_scale=0.25)
        torch.testing.assert_close(scaled(images), plain(images) / 4)
        assert [name for name, _ in scaled.named_children()] == ["blocks", "dense", "classifier", "scale"]
        assert [name for name, _ in plain.named_children()] == ["blocks", "dense", "classifier"]

    def test_no_bias(self) -> None:
        network = built({"filters": 4}, classifier_bias=False)
        assert network.classifier.bias is None
        assert torch.equal(network.classifier(torch.zeros(1, 4 * 8 * 8)), torch.zeros(1, 4))
