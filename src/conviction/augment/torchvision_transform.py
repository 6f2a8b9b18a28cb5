"""Any transform of torchvision by its name: image by image, and so slower than what works on batches."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Generator, Tensor

from conviction.augment.base import AUGMENTATIONS, GREY_LEVELS, AugmentConfig, Recolouring, Size
from conviction.core.device import sent
from conviction.core.errors import ConfigError, did_you_mean

_CONVERTS = "it changes the type of pictures, which the recipe does by itself"
_PARTS = "write its parts as entries of the list"
_STANDARDIZES = "the recipe's `standardize` does that, in evaluation too"
_BOXES = "it is for boxes, key points and videos"
_SIZES = "pictures would have other sizes than in evaluation; `data.image_size_px` brings all of them to one"
_SEVERAL = "it makes several pictures of one"
_REFUSED: Mapping[str, str] = {
    "Transform": "it is the base of the others",
    "Lambda": "a recipe holds no functions",
    "MixUp": "it needs labels; take `mixup`",
    "CutMix": "it needs labels; take `cutmix`",
    **dict.fromkeys(("Compose", "RandomApply", "RandomChoice", "RandomOrder"), _PARTS),
    **dict.fromkeys(("ToDtype", "ConvertImageDtype", "ToImage", "ToPILImage", "ToPureTensor"), _CONVERTS),
    **dict.fromkeys(("ToTensor", "PILToTensor"), _CONVERTS),
    **dict.fromkeys(("Normalize", "LinearTransformation"), _STANDARDIZES),
    **dict.fromkeys(("ClampBoundingBoxes", "ClampKeyPoints", "ConvertBoundingBoxFormat", "SetClampingMode"), _BOXES),
    **dict.fromkeys(("SanitizeBoundingBoxes", "SanitizeKeyPoints", "RandomIoUCrop"), _BOXES),
    "UniformTemporalSubsample": _BOXES,
    **dict.fromkeys(("Resize", "RandomResize", "RandomShortestSize", "ScaleJitter"), _SIZES),
    **dict.fromkeys(("Pad", "RandomZoomOut"), _SIZES),
    **dict.fromkeys(("FiveCrop", "TenCrop"), _SEVERAL),
}
# Of these, evaluation cuts as much from the middle.
_CROPS = ("CenterCrop", "RandomCrop", "RandomResizedCrop")
_WHERE = "torchvision.transforms.v2"


class TorchvisionConfig(AugmentConfig):
    """A transform of torchvision.transforms.v2, applied to each image by itself."""

    name: Literal["torchvision"] = "torchvision"
    transform: str = Field(description="Its name in torchvision.transforms.v2, for example ElasticTransform")
    options: dict[str, Any] = Field({}, description="What it is built with, as torchvision's documentation names it")

    @model_validator(mode="after")
    def _can_be_built(self) -> TorchvisionConfig:
        built(self.transform, self.options)
        return self


def transform_names() -> list[str]:
    """The transforms of images that torchvision offers and a recipe may name."""
    from torchvision.transforms import v2

    found = [name for name, value in vars(v2).items() if inspect.isclass(value) and issubclass(value, v2.Transform)]
    return sorted(set(found) - set(_REFUSED))


def built(name: str, options: Mapping[str, Any]) -> Any:
    """torchvision's transform. Raises: ValueError for a name or options that cannot be used."""
    from torchvision.transforms import v2

    if name in _REFUSED:
        raise ValueError(f"{_WHERE}.{name} is not for a recipe: {_REFUSED[name]}.")
    if name not in transform_names():
        raise ValueError(f"No transform of images named {name!r} in {_WHERE}. {did_you_mean(name, transform_names())}")
    transform = getattr(v2, name)
    accepted = inspect.signature(transform).parameters
    for option in options:
        if option not in accepted:
            raise ValueError(f"{name} has no option {option!r}. {did_you_mean(option, accepted)}")
    needed = [key for key, about in accepted.items() if about.default is about.empty and key not in options]
    if needed:
        raise ValueError(f"{name} needs `options` with {', '.join(needed)}.")
    given = dict(options)
    try:
        # Older versions of torchvision know resamplings by their own enumeration alone.
        if isinstance(resampling := given.get("interpolation"), str):
            given["interpolation"] = v2.InterpolationMode(resampling)
        made = transform(**given)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{name} cannot be built with {dict(options)}; torchvision says: {error}") from error
    if getattr(made, "expand", False):
        raise ValueError(f"{name} with expand: true is not for a recipe: {_SIZES}.")
    return made


class TorchvisionTransform(Recolouring):
    """torchvision's transform of each image, in grey levels; its draws come from the recipe's generator."""

    def __init__(self, config: TorchvisionConfig) -> None:
        self._name, self._transform = config.transform, built(config.transform, config.options)

    def output_size(self, size_px: Size) -> Size:
        """What crops leave. Raises: ConfigError where that is more than there is."""
        if self._name not in _CROPS:
            return size_px
        height, width = self._transform.size
        if height > size_px[0] or width > size_px[1]:
            raise ConfigError(
                f"torchvision: {self._name} gives {height}×{width} pixels, and in evaluation as much is cut from the "
                f"middle of the pictures, which have {size_px[0]}×{size_px[1]}. Lower its `size`."
            )
        return height, width

    def recolour(self, images: Float[Tensor, "B C H W"], generator: Generator) -> Float[Tensor, "B C H2 W2"]:
        """Each image by a seed of its own. Raises: ConfigError where the transform cannot be applied to it."""
        seeds = torch.randint(0, 2**63 - 1, (len(images),), generator=generator).tolist()
        # On the processor: a GPU draws other numbers from the same seed.
        levels = (images * GREY_LEVELS).round().to(torch.uint8).cpu()
        expected = (images.shape[1], *self.output_size((images.shape[2], images.shape[3])))
        changed = []
        with torch.random.fork_rng(devices=[]):
            for image, seed in zip(levels, seeds, strict=True):
                torch.default_generator.manual_seed(seed)
                changed.append(self._applied(image, expected))
        return sent(torch.stack(changed), images.device).float() / GREY_LEVELS

    def _applied(self, image: Tensor, expected: tuple[int, ...]) -> Tensor:
        try:
            found: Tensor = self._transform(image)
        except (TypeError, ValueError, RuntimeError) as error:
            shown = "×".join(map(str, image.shape))
            raise ConfigError(
                f"torchvision: {self._name} cannot be applied to pictures of {shown} (channels, height, width); "
                f"torchvision says: {error}"
            ) from error
        if tuple(found.shape) != expected:
            shown, wanted = ("×".join(map(str, shape)) for shape in (found.shape, expected))
            raise ConfigError(
                f"torchvision: {self._name} gives pictures of {shown} (channels, height, width), but in evaluation "
                f"they have {wanted}. Choose other options, or another transform."
            )
        return found


@AUGMENTATIONS.register(
    "torchvision",
    TorchvisionConfig,
    "Any transform of images of torchvision.transforms.v2, by name; image by image, and so slower than the others",
    reference="torchvision's documentation",
)
def _build_torchvision(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, TorchvisionConfig)
    return TorchvisionTransform(config)
