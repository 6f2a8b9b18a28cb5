"""Networks changed after they were built: fully connected layers turned into convolutions.

A fully connected layer on a map of C×H×W numbers is a convolution whose kernel covers the whole map. Written so, the
network no longer asks for one size of picture: on a larger one it slides, and gives a map of class scores.

Source: J. Long, E. Shelhamer, T. Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015.
"""

from __future__ import annotations

import copy

import torch
from torch import fx, nn

from conviction.core.errors import ConfigError
from conviction.nets.block import BlockNetwork
from conviction.nets.dispatch import MetaMode, compiler_left_out
from conviction.nets.field import AXES
from conviction.nets.graph import Shapes, in_a_row
from conviction.nets.inspection import as_meta
from conviction.nets.misfit import first_line
from conviction.nets.sliding import make_sliding
from conviction.nets.trace import Step, Trace, dtype_of, trace

# Of the largest logit, in float32; what two ways of adding the same products up may differ by.
_TOLERANCE = 1e-5


def to_dense_map(network: nn.Module, input_shape: tuple[int, int, int]) -> nn.Module:
    """The network with its fully connected layers as convolutions: logits (B, K, h, w) instead of (B, K).

    `input_shape` (C, H, W) are the pictures that the network was planned for; on those it gives the same logits, at
    h = w = 1, which is confirmed each time. On larger ones each position speaks of a window of that size. A pooling to
    a fixed size, a global one too, becomes a pooling over the window that it covered. The weights are copied, the
    network stays as it is; the result is in evaluation mode.

    Raises: ConfigError that names the operation where the network cannot slide: because every position depends on the
    whole picture (squeeze-and-excitation, attention), or because torch.fx cannot follow it.
    """
    sliding = _followed(network)
    make_sliding(sliding, _planned_shapes(sliding, input_shape))
    sliding.graph.eliminate_dead_code()
    sliding.delete_all_unused_submodules()
    sliding.recompile()
    _confirm(network, sliding, input_shape)
    _refuse_what_does_not_slide(sliding, input_shape)
    return sliding.eval()


_MAP_DIMENSIONS = 4
# A size that every stride in use divides, and every unshuffling.
_FAR_PX = 2**6 * 3**2 * 5 * 7


def map_stride(sliding: nn.Module, input_shape: tuple[int, int, int]) -> tuple[int, int]:
    """How many pixels down and to the right lie between two neighbouring positions of a dense map.

    Counted on very large pictures, where it does not matter what the network rounds at the edge. `input_shape`
    (C, H, W) are the planned pictures.

    Raises: ConfigError where positions lie closer than a pixel, or unevenly.
    """
    on_meta = as_meta(sliding)
    channels, height, width = input_shape

    def size(times: int) -> tuple[int, int]:
        far = (1, channels, height + times * _FAR_PX, width + times * _FAR_PX)
        with torch.no_grad(), MetaMode():
            maps = on_meta(torch.empty(far, device="meta", dtype=dtype_of(on_meta)))
        return maps.shape[2], maps.shape[3]

    grown = [further - far for far, further in zip(size(1), size(2), strict=True)]
    if any(steps < 1 or _FAR_PX % steps for steps in grown):
        raise ConfigError("The network's dense map has no even stride of whole pixels.")
    down, right = (_FAR_PX // steps for steps in grown)
    return down, right


def _followed(network: nn.Module) -> fx.GraphModule:
    """A copy of the network as a graph of its operations."""
    # What torch.compile gives holds the network itself.
    copied = copy.deepcopy(getattr(network, "_orig_mod", network)).eval()
    if isinstance(copied, BlockNetwork) and copied.scale is not None:
        # Into the weights before it, which are the copy's own.
        with torch.no_grad():
            for weight in copied.classifier.parameters():
                weight.mul_(copied.scale.factor)
        copied.scale = None
    copied = in_a_row(copied)
    try:
        return fx.symbolic_trace(copied)
    except Exception as error:  # the user's own code may raise anything
        raise ConfigError(
            f"{type(network).__name__} cannot be turned into a dense map, as torch.fx cannot follow what it computes: "
            f"{error}".rstrip(".")
            + "."
        ) from error


def _planned_shapes(sliding: fx.GraphModule, input_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """The sizes of all values on the planned pictures, by the names of their operations."""
    shapes = Shapes(as_meta(sliding))  # type: ignore[arg-type]
    try:
        with torch.no_grad(), MetaMode():
            shapes.run(torch.empty((2, *input_shape), device="meta", dtype=dtype_of(sliding)))
    except Exception as error:  # the user's own code may raise anything
        shown = "×".join(map(str, input_shape))
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"The network does not take pictures of {shown}: {reason}.") from error
    return shapes.of


def _confirm(network: nn.Module, sliding: nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Raises: ConfigError where the two differ on the planned pictures."""
    weight = next(network.parameters(), torch.empty(0))
    if not weight.is_meta:
        generator = torch.Generator().manual_seed(0)
        images = torch.rand((2, *input_shape), generator=generator).to(weight.device, dtype_of(network))
        former = [(module, module.training) for module in network.modules()]
        try:
            with torch.inference_mode():
                logits, maps = network.eval()(images), sliding(images)
        finally:
            for module, training in former:
                module.training = training
        scale = max(1.0, float(logits.abs().max()))
        if maps.shape != (*logits.shape, 1, 1) or float((maps[..., 0, 0] - logits).abs().max()) > _TOLERANCE * scale:
            raise ConfigError(
                f"{type(network).__name__} gives other logits as a dense map: it computes in a way that is not known."
            )


def _refuse_what_does_not_slide(sliding: fx.GraphModule, input_shape: tuple[int, int, int]) -> None:
    """Raises: ConfigError where a position of the map would not speak of its window, or not of it alone.

    The fields in a picture of twice the size tell.
    """
    channels, height, width = input_shape
    with compiler_left_out():
        followed = trace(as_meta(sliding), (channels, 2 * height, 2 * width))
    if followed.fault is not None:
        raise ConfigError(
            f"The network takes no larger pictures as a dense map either: {first_line(followed.fault)}."
        ) from followed.fault
    for step in followed.steps:
        reason = _why_it_does_not_slide(step)
        if reason:
            raise ConfigError(f"The network cannot be turned into a dense map because of {step.path}: {reason}.")
    _compare_with_windows(sliding, followed, input_shape)


def _why_it_does_not_slide(step: Step) -> str:
    field = step.field
    if field is None or step.output is None:
        return ""
    holders = tuple(field.holder(axis) for axis in AXES)
    if None in holders:
        return "each of its positions depends on the whole picture"
    if any(seen.period > 1 for seen in field.maps):
        return "its positions lie closer together than those that it is made from"
    # Channels may stand before or behind the sides.
    if len(step.output) == _MAP_DIMENSIONS and holders not in ((2, 3), (1, 2)):
        return "it turns rows into columns"
    return ""


def _compare_with_windows(sliding: fx.GraphModule, followed: Trace, input_shape: tuple[int, int, int]) -> None:
    """Raises: ConfigError where a network without padding says something else of a window that is cut out.

    With padding it does so by its nature: inside a larger picture there are pixels instead of zeros.
    """
    weight = next(sliding.parameters(), torch.empty(0))
    channels, height, width = input_shape
    if weight.is_meta or any(_sees_padding(step, (2 * height, 2 * width)) for step in followed.steps):
        return
    down, right = map_stride(sliding, input_shape)
    generator = torch.Generator().manual_seed(1)
    images = torch.rand((1, channels, 2 * height, 2 * width), generator=generator).to(weight.device, weight.dtype)
    with torch.inference_mode():
        maps = sliding(images)
        scale = max(1.0, float(maps.abs().max()))
        last = (maps.shape[2] - 1, maps.shape[3] - 1)
        for row, column in {(0, last[1]), (last[0], 0), last, (last[0] // 2, last[1] // 2)}:
            top, left = row * down, column * right
            alone = sliding(images[:, :, top : top + height, left : left + width])
            if (
                alone.shape[2:] != (1, 1)
                or (alone[..., 0, 0] - maps[..., row, column]).abs().max() > scale * _TOLERANCE
            ):
                raise ConfigError(
                    "The network cannot be turned into a dense map: it says of a window in a larger picture something "
                    "else than of the window alone."
                )


def _sees_padding(step: Step, picture_px: tuple[int, int]) -> bool:
    field = step.field
    return field is not None and any(
        field.maps[axis].at(0)[0] < 0 or field.maps[axis].at(field.extent(axis) - 1)[1] >= picture_px[axis]
        for axis in AXES
    )
