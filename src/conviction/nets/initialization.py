"""Weights that a network begins with: kernels that pass their input on, and kernels that whiten the images' patches."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from conviction.core.errors import ConfigError


def make_dirac(convolution: nn.Conv2d) -> None:
    """Turn the first min(in, out) filters into identities, each of its own channel; the others stay as they are.

    Source: K. Jordan, 94% on CIFAR-10 in 3.29 seconds on a single GPU, 2024, arXiv:2404.00498, identity initialisation.
    """
    num_identities = min(convolution.in_channels, convolution.out_channels)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[:num_identities])


def refuse_whitening(num_filters: int, shape: tuple[int, int, int], kernel_px: int, path: str) -> None:
    """Raises: ConfigError where pictures of `shape` (C, H, W) have no such patch, or too few directions for filters."""
    num_channels, *sides_px = shape
    if kernel_px > min(sides_px):
        raise ConfigError(
            f"{path}: `initialization: whitening` needs whole patches: `kernel_px <= {min(sides_px)}` must hold for "
            f"pictures of {sides_px[0]}×{sides_px[1]} pixels, but got kernel_px={kernel_px}."
        )
    most = 2 * num_channels * kernel_px**2
    if num_filters > most:
        raise ConfigError(
            f"{path}: `initialization: whitening` makes at most {most} filters from patches of {kernel_px}×{kernel_px} "
            f"in {num_channels} channels, a direction and its negative each, but got filters={num_filters}."
        )


def needs_images(network: nn.Module) -> bool:
    """Whether `initialize_from_images` has anything to do."""
    return getattr(network, "whitening_epsilon", None) is not None


def initialize_from_images(network: nn.Module, batches: Iterable[Float[Tensor, "_ C H W"]]) -> None:
    """Fill the kernels that are to be made from images; `batches` are training images as the network sees them."""
    epsilon = getattr(network, "whitening_epsilon", None)
    if epsilon is None:
        return
    convolution = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    size_px = convolution.kernel_size
    covariance = patch_covariance(batches, (size_px[0], size_px[1])).cpu()
    kernels = whitening_kernels(covariance, convolution.out_channels, epsilon)
    with torch.no_grad():
        convolution.weight.copy_(kernels.reshape(convolution.weight.shape))


def patch_covariance(batches: Iterable[Float[Tensor, "_ C H W"]], size_px: tuple[int, int]) -> Float64[Tensor, "D D"]:
    """The covariance of all patches of `size_px` (height, width), each in the order C, h, w, as kernels are."""
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for images in batches:
        patches = nn.functional.unfold(images.double().contiguous(), size_px)
        count += len(patches) * patches.shape[2]
        total = total.to(patches) + patches.sum(dim=(0, 2))
        products = products.to(patches) + (patches @ patches.mT).sum(dim=0)
    if count == 0:
        raise ValueError("there is no image to take patches from")
    mean = total / count
    covariance: Tensor = products / count - torch.outer(mean, mean)
    return covariance


def whitening_kernels(
    covariance: Float64[Tensor, "D D"], num_filters: int, epsilon: float
) -> Float64[Tensor, "num_filters D"]:
    """The principal directions, largest variance first, each over the root of its variance + epsilon; then negatives.

    What comes out of the first half, a patch's products with it, has covariance diag(variance / (variance + epsilon)).
    Source: K. Jordan, 94% on CIFAR-10 in 3.29 seconds on a single GPU, 2024, arXiv:2404.00498, frozen patch-whitening.
    """
    variances, directions = torch.linalg.eigh(covariance)
    num_directions = num_filters // 2
    chosen = directions.flip(1)[:, :num_directions].T
    # A direction's sign is the decomposition's whim; so it is the same on every machine.
    largest = chosen.gather(1, chosen.abs().argmax(dim=1, keepdim=True))
    gains = (variances.flip(0)[:num_directions].clamp(min=0) + epsilon).rsqrt()
    half = chosen * largest.sign() * gains[:, None]
    return torch.cat((half, -half))
