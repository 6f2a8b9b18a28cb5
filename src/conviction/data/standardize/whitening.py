"""Whitening by the principal components of the training split: ZCA and PCA, over all values of a picture at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, UInt8
from pydantic import Field
from torch import Tensor

from conviction.core.errors import ConfigError, DataError
from conviction.data.resident import read_rows
from conviction.data.standardize.base import (
    GREY_LEVELS,
    STANDARDIZATION_RECORDS,
    STANDARDIZATIONS,
    StandardizationRecord,
    StandardizeConfig,
    Standardizer,
)
from conviction.data.standardize.contrast import Contrast, Positive, average_mean_and_deviation

# 3×52×52, say. The covariance grows with the square and its decomposition with the cube: at 8,192 values they take
# 2.1 GB and about a minute, and each batch of 128 pictures 17 GFLOPs. 3×64×64 would take 4.8 GB and three minutes.
MOST_VALUES = 8192
# The covariance, its eigenvectors, and the working space of the decomposition, which is as large as both.
_COPIES = 4
_CHUNK = 1024
Components = Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, lt=1)]


class ZcaConfig(StandardizeConfig):
    """Values that no longer vary together, as like the picture as that allows."""

    name: Literal["zca"] = "zca"
    epsilon: Positive = Field(
        0.1, description="Added to each variance; without contrast values lie in [0, 1], and about 0.01 suits"
    )
    contrast: bool = Field(True, description="First give each picture its own mean 0 and deviation contrast_scale")
    contrast_scale: Positive = Field(1.0, description="Deviation of each picture after contrast normalisation")
    contrast_floor: Positive = Field(0.01, description="Least deviation divided by, on the scale [0, 1]")


class PcaConfig(StandardizeConfig):
    """The training split's principal components, in the picture's own shape."""

    name: Literal["pca"] = "pca"
    components: Components | None = Field(
        None, description="Number of components, or share of the variance in (0, 1), to keep; null: all"
    )
    whiten: bool = Field(True, description="Give each component deviation 1")
    epsilon: float = Field(0.01, ge=0, description="Added to each variance where whiten is true; values lie in [0, 1]")


class WhiteningRecord(StandardizationRecord):
    """The form of a whitening, and the SHA-256 of its tensors."""

    has_tensors: ClassVar[bool] = True
    name: Literal["whitening"] = "whitening"
    input_shape: tuple[int, int, int]
    num_components: int = Field(ge=1, le=MOST_VALUES)
    contrast: Contrast | None
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    def fits(self, input_shape: tuple[int, int, int]) -> bool:
        return self.input_shape == input_shape


@dataclass(frozen=True, eq=False)
class Whitening(Standardizer):
    """`U diag(gains) Uᵀ (x - mean)`: along each principal component, a column of U, a gain; along all others nothing.

    `x` are the values of a picture, as they are or after contrast normalisation, in the order H, W, C. `gains` are
    `1 / sqrt(variance + epsilon)`, or 1 where nothing is whitened.
    """

    input_shape: tuple[int, int, int]
    mean: Float32[Tensor, " D"]
    components: Float32[Tensor, "D K"]
    gains: Float32[Tensor, " K"]
    contrast: Contrast | None
    _on_device: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Whitening) and self.record() == other.record()

    def __hash__(self) -> int:
        return hash(self.record())

    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The images as `float32`, channels last.

        Raises: ConfigError for pictures of another size than it was fitted to.
        """
        if tuple(images.shape[1:]) != self.input_shape:
            raise ConfigError(
                f"The whitening was fitted to pictures of {_shown(self.input_shape)} and cannot be applied to "
                f"{_shown(tuple(images.shape[1:]))}. Keep their size, or standardise by channel: standardize=channel."
            )
        values = self.contrast(images) if self.contrast else images.float().div_(GREY_LEVELS)
        # In full precision: the gains span orders of magnitude.
        with torch.autocast(images.device.type, enabled=False):
            mean, matrix = self._matrix(images.device)
            return self._as_images((_as_rows(values) - mean) @ matrix)

    def inverted(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Back to the scale [0, 1]: the whitening is undone exactly, but for components that were left out.

        Where contrast was normalised, each picture's own mean and deviation are lost: it comes back with the training
        pictures' average ones, and is the picture up to brightness and contrast.
        """
        mean, components, gains = (part.to(images.device) for part in (self.mean, self.components, self.gains))
        with torch.autocast(images.device.type, enabled=False):
            values = self._as_images((_as_rows(images) @ components / gains) @ components.T + mean)
        return self.contrast.inverted(values) if self.contrast else values

    def record(self) -> WhiteningRecord:
        """Its form, and what its tensors must be."""
        return WhiteningRecord(
            input_shape=self.input_shape,
            num_components=len(self.gains),
            contrast=self.contrast,
            sha256=_digest(self.tensors()),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Mean, components and gains."""
        return {"mean": self.mean, "components": self.components, "gains": self.gains}

    def _as_images(self, rows: Float[Tensor, "B D"]) -> Float[Tensor, "B C H W"]:
        channels, height, width = self.input_shape
        return rows.reshape(-1, height, width, channels).permute(0, 3, 1, 2)

    def _matrix(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and whole matrix on a device: one product for each batch in place of two."""
        if device not in self._on_device:
            # Kept beyond this call, whatever mode it is in; and made where nothing is rounded to bfloat16.
            with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
                matrix = (self.components * self.gains) @ self.components.T
                self._on_device[device] = (self.mean.to(device), matrix.to(device))
        return self._on_device[device]


def _as_rows(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
    return images.permute(0, 2, 3, 1).reshape(len(images), -1)


def _shown(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()


@STANDARDIZATION_RECORDS.register("whitening", WhiteningRecord, "Principal components and their gains")
def _restored(record: StandardizationRecord, tensors: Mapping[str, Tensor]) -> Whitening:
    assert isinstance(record, WhiteningRecord)
    num_values = int(np.prod(record.input_shape, dtype=object))
    num = record.num_components
    shapes = {"mean": (num_values,), "components": (num_values, num), "gains": (num,)}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != shapes:
        raise DataError(f"the whitening needs tensors of the shapes {shapes}, but got {found}.")
    if any(tensor.dtype != torch.float32 or not tensor.isfinite().all() for tensor in tensors.values()):
        raise DataError("the whitening's tensors must be finite numbers of float32.")
    if not (tensors["gains"] > 0).all():
        raise DataError("the whitening's gains must be positive.")
    if _digest(tensors) != record.sha256:
        raise DataError("the whitening's tensors are not those that the model was saved with.")
    return Whitening(record.input_shape, tensors["mean"], tensors["components"], tensors["gains"], record.contrast)


def mean_and_covariance(
    images: np.ndarray, rows: np.ndarray, contrast: Contrast | None
) -> tuple[Float64[np.ndarray, " D"], Float64[np.ndarray, "D D"]]:
    """Mean and covariance of the pictures' values, in one pass, a thousand pictures at a time.

    Divided by the number of pictures, as the deviations of the channels are. Without contrast normalisation the sums
    are of whole numbers below 2⁵³, and exact.
    """
    num_values = images[:1].size
    total = torch.zeros(num_values, dtype=torch.float64)
    products = torch.zeros(num_values, num_values, dtype=torch.float64)
    # In the order of the file, which is the fastest to read, and gives the same bits for the same pictures.
    ordered = np.sort(rows)
    for start in range(0, len(ordered), _CHUNK):
        chunk = read_rows(images, ordered[start : start + _CHUNK]).reshape(-1, num_values).astype(np.float64)
        values = torch.from_numpy(contrast.of_rows(chunk) if contrast else chunk)
        total += values.sum(dim=0)
        products.addmm_(values.T, values)
    covariance = products.addr_(total, total, alpha=-1 / len(rows)).div_(len(rows))
    mean = total / len(rows)
    if contrast is None:
        mean, covariance = mean / GREY_LEVELS, covariance.div_(GREY_LEVELS**2)
    return mean.numpy(), covariance.numpy()


def _principal_components(
    covariance: Float64[np.ndarray, "D D"],
) -> tuple[Float64[Tensor, " D"], Float64[Tensor, "D D"]]:
    """Variances, the largest first, and the components as columns."""
    variances, components = torch.linalg.eigh(torch.from_numpy(covariance))
    return variances.flip(0).clamp_(min=0), components.flip(1)


def _refuse_many_values(name: str, images: np.ndarray) -> None:
    num_values = images[:1].size
    if num_values > MOST_VALUES:
        covariance_gb = 8 * num_values**2 / 1e9
        height, width, channels = images.shape[1:]
        raise ConfigError(
            f"standardize: {name!r} takes pictures of at most {MOST_VALUES:,} values, but {channels}×{height}×{width} "
            f"are {num_values:,}: their covariance alone would take {covariance_gb:.1f} GB, and its decomposition "
            f"{_COPIES * covariance_gb:.1f} GB. Use smaller pictures (--set data.image_size_px="
            f"{int((MOST_VALUES / channels) ** 0.5)} at most), or --set standardize=channel."
        )


def _whitening(
    images: np.ndarray,
    mean: Float64[np.ndarray, " D"],
    components: Float64[Tensor, "D K"],
    gains: Float64[Tensor, " K"],
    contrast: Contrast | None,
) -> Whitening:
    _, height, width, channels = images.shape
    return Whitening(
        (channels, height, width),
        torch.from_numpy(mean).float(),
        components.float().contiguous(),
        gains.float(),
        contrast,
    )


@STANDARDIZATIONS.register(
    "zca",
    ZcaConfig,
    "Contrast normalisation of each picture, then ZCA whitening fitted on the training split",
    reference="Krizhevsky 2009 (Learning multiple layers of features from tiny images); Coates, Ng and Lee 2011 (An "
    "analysis of single-layer networks in unsupervised feature learning); as in "
    "Goodfellow et al. 2013 (Maxout networks)",
)
def _zca(config: StandardizeConfig, images: np.ndarray, rows: np.ndarray) -> Whitening:
    assert isinstance(config, ZcaConfig)
    _refuse_many_values(config.name, images)
    contrast = None
    if config.contrast:
        mean, deviation = average_mean_and_deviation(images, rows)
        contrast = Contrast(scale=config.contrast_scale, floor=config.contrast_floor, mean=mean, deviation=deviation)
    values_mean, covariance = mean_and_covariance(images, rows, contrast)
    variances, components = _principal_components(covariance)
    return _whitening(images, values_mean, components, (variances + config.epsilon).rsqrt(), contrast)


@STANDARDIZATIONS.register(
    "pca",
    PcaConfig,
    "The training split's principal components, whitened or not, all or the first, in the picture's own shape",
    reference="Jolliffe 2002 (Principal component analysis); whitening as in scikit-learn's `PCA`",
)
def _pca(config: StandardizeConfig, images: np.ndarray, rows: np.ndarray) -> Whitening:
    assert isinstance(config, PcaConfig)
    _refuse_many_values(config.name, images)
    mean, covariance = mean_and_covariance(images, rows, None)
    variances, components = _principal_components(covariance)
    num_kept = _num_kept(config.components, variances)
    kept = variances[:num_kept]
    gains = (kept + config.epsilon).rsqrt() if config.whiten else torch.ones_like(kept)
    return _whitening(images, mean, components[:, :num_kept], gains, None)


def _num_kept(wanted: int | float | None, variances: Float64[Tensor, " D"]) -> int:
    """How many components are kept; never one in whose direction the training pictures do not vary.

    Raises: ConfigError where more are asked for than there are.
    """
    # numpy's and MATLAB's limit for the rank: what is below it is rounding.
    least = variances[0] * len(variances) * torch.finfo(torch.float64).eps
    rank = int((variances > least).sum())
    if rank == 0:
        raise ConfigError("standardize: 'pca' needs training pictures that differ from one another.")
    if wanted is None:
        return rank
    if isinstance(wanted, int):
        if wanted > rank:
            raise ConfigError(
                f"standardize.components: {wanted:,} are asked for, but the training pictures vary along {rank:,} "
                f"alone. Ask for at most {rank:,}, or null for all."
            )
        return wanted
    shares = variances[:rank].cumsum(0) / variances[:rank].sum()
    return min(rank, int((shares < wanted).sum()) + 1)
