"""Receptive fields of whole networks: numbers by hand, and gradients of networks with positive weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from conviction.core.architecture import ReceptiveField
from conviction.nets import PRESETS, build_network
from conviction.nets.block import BlocksConfig
from conviction.nets.field_check import check_fields
from conviction.nets.inspection import inspect_network


class Residual(nn.Module):
    """A block with a shortcut, strided where `stride` is."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, stride, 1)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels, channels, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(images))) + self.shortcut(images))


class Joined(nn.Module):
    """Two branches of different kernels, laid behind each other."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 7, padding=3)
        self.after = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.after(torch.cat([self.narrow(images), self.wide(images)], dim=1))


class SqueezeAndExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.scale = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.before(images)
        return maps * torch.sigmoid(self.scale(maps.mean(dim=(2, 3), keepdim=True)))


class Shuffled(nn.Module):
    """Channels shuffled by reshaping, as ShuffleNet does it."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 6, 3, groups=3, padding=1), nn.Conv2d(6, 6, 3, groups=2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.before(images)
        batch, channels, height, width = maps.shape
        shuffled = maps.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(maps.shape)
        return self.after(shuffled)


class ChannelsLast(nn.Module):
    """A linear layer over the channels of each position, as ConvNeXt has it."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.mix, self.norm = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.patches(images).permute(0, 2, 3, 1)
        return self.mix(self.norm(maps)).permute(0, 3, 1, 2)


class WrittenInPlace(nn.Module):
    """Half of the channels are replaced through a view of them."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 5, padding=2)
        self.after = nn.Conv2d(4, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.narrow(images)
        maps[:, :2] += self.wide(images)
        return self.after(maps)


class Written(nn.Module):
    """A network whose forward pass is given, with layers to choose from."""

    def __init__(self, forward: Callable[[Any, Tensor], object]) -> None:
        super().__init__()
        self.point, self.narrow, self.wide = conv(1), conv(3, padding=1), conv(5, padding=2)
        self.join, self.pair = nn.Conv2d(6, 4, 1), nn.Conv2d(3, 6, 3, padding=1)
        self.tall = conv((1, 7), padding=(0, 3))
        # A layer at the end, whose output the gradients are taken of.
        self.end = nn.Identity()
        self._forward = forward

    def forward(self, images: Tensor) -> Any:
        return self.end(self._forward(self, images))


def canvas(network: Any, images: Tensor) -> Tensor:
    """Two maps written into a tensor that was made empty."""
    drawn = torch.zeros(len(images), 6, *images.shape[2:], dtype=images.dtype)
    drawn[:, :3] = network.wide(images)
    drawn[:, 3:] = network.narrow(images)
    return network.join(drawn)


def drawn_over(network: Any, images: Tensor) -> Tensor:
    drawn = images.new_zeros(images.shape)
    drawn[:, :2] = network.wide(images)[:, :2]
    return drawn + network.point(images)


def with_coordinates(network: Any, images: Tensor) -> Tensor:
    rows = torch.linspace(-1, 1, images.shape[2], dtype=images.dtype)[None, None, :, None].expand(1, 3, -1, 32)
    return network.join(torch.cat([network.narrow(images), rows], dim=1))


def u_net() -> nn.Module:
    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
            self.up = nn.ConvTranspose2d(4, 3, 2, 2)
            self.last = nn.Conv2d(6, 4, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            return self.last(torch.cat([images, self.up(self.down(images))], dim=1))

    return UNet()


def field_of(network: nn.Module, shape: tuple[int, int, int] = (3, 32, 32), layer: int = -1) -> ReceptiveField:
    reached = [found for found in inspect_network(network, shape).layers if found.output is not None]
    return reached[layer].receptive_field


def conv(*sizes: Any, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(3, 3, *sizes, **options)


# Size, stride, centre of the first, all by hand.
BY_HAND: dict[str, tuple[Callable[[], nn.Module], float, float | None, float]] = {
    "lab D1: 3×3 after 5×5": (lambda: nn.Sequential(conv(5), conv(3)), 7, 1, 3.5),
    "two 3×3 with same padding": (lambda: nn.Sequential(conv(3, padding=1), conv(3, padding=1)), 5, 1, 0.5),
    "dilation 2": (lambda: conv(3, dilation=2, padding=2), 5, 1, 0.5),
    "depthwise": (lambda: conv(3, groups=3, padding=1), 3, 1, 0.5),
    "pooling 3 with stride 2": (lambda: nn.Sequential(conv(3), nn.MaxPool2d(3, 2)), 5, 2, 2.5),
    # Other tools take the shortcut's stride for a further one and say 15 with 4.
    "strided shortcut": (lambda: nn.Sequential(Residual(3, 1), Residual(3, 1), nn.Conv2d(3, 3, 3, 2, 1)), 11, 2, 0.5),
    "strided shortcut within": (lambda: nn.Sequential(Residual(3, 2), conv(3, padding=1)), 11, 2, 0.5),
    "plain shortcuts": (lambda: nn.Sequential(Residual(3, 1), Residual(3, 1)), 9, 1, 0.5),
    "branches joined": (Joined, 9, 1, 0.5),
    "global pooling": (lambda: nn.Sequential(conv(3, padding=1), nn.AdaptiveAvgPool2d(1)), 34, None, 16),
    "dense on everything": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)), 32, None, 16),
    "transposed 2 of stride 2": (lambda: nn.ConvTranspose2d(3, 3, 2, 2), 1, 0.5, 0.5),
    # Output 2q sees pixels q − 1 and q; output 2q + 1 pixel q alone where the kernel is 3 without padding.
    "transposed 3 of stride 2": (lambda: nn.ConvTranspose2d(3, 3, 3, 2), 2, 0.5, 0),
    "nearest upsampling, then 3×3": (lambda: nn.Sequential(nn.Upsample(scale_factor=2), conv(3, padding=1)), 2, 0.5, 0),
    "squeeze and excitation": (SqueezeAndExcite, 34, None, 16),
    "channel shuffle": (Shuffled, 5, 1, 1.5),
    "channels last": (ChannelsLast, 4, 4, 2),
    "written in place": (WrittenInPlace, 5, 1, 0.5),
    "pixel shuffle": (lambda: nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)), 3, 0.5, 0.5),
    "batch normalisation": (lambda: nn.Sequential(conv(3, padding=1), nn.BatchNorm2d(3)), 3, 1, 0.5),
    "local response": (lambda: nn.Sequential(conv(3, padding=1), nn.LocalResponseNorm(3)), 3, 1, 0.5),
    # It divides by the deviation over the whole map, so that each position depends on all of it.
    "group normalisation": (lambda: nn.Sequential(conv(3, padding=1), nn.GroupNorm(1, 3)), 34, None, 16),
    "zeros for the new channels": (
        lambda: Written(lambda n, x: n.join(torch.cat([n.narrow(x), torch.zeros_like(x)], dim=1))),
        *(3, 1, 0.5),
    ),
    "a mask of ones": (lambda: Written(lambda n, x: n.narrow(x) * torch.ones_like(x)), 3, 1, 0.5),
    "written on a canvas": (lambda: Written(canvas), 5, 1, 0.5),
    "drawn over": (lambda: Written(drawn_over), 5, 1, 0.5),
    "coordinates beside the channels": (lambda: Written(with_coordinates), 3, 1, 0.5),
    "gated": (lambda: Written(lambda n, x: nn.functional.glu(n.pair(x), dim=1)), 3, 1, 0.5),
    "the two largest channels": (lambda: Written(lambda n, x: n.narrow(x).topk(2, dim=1)[0]), 3, 1, 0.5),
    "channels sorted": (lambda: Written(lambda n, x: n.narrow(x).sort(dim=1)[0]), 3, 1, 0.5),
    "repeated": (lambda: Written(lambda n, x: n.join(n.narrow(x).repeat(1, 2, 1, 1))), 3, 1, 0.5),
    "a mean in another precision": (
        lambda: Written(lambda n, x: n.narrow(x) * n.narrow(x).mean(dtype=x.dtype)),
        *(34, None, 16),
    ),
    "weights apart from direction": (lambda: parametrizations.weight_norm(conv(3, padding=1)), 3, 1, 0.5),
    # Output o sees 2⌊o / 2⌋ ± 3 through the lower branch; a 3×3 behind it adds one such step on one side.
    "U-net": (u_net, 9, 1, 0.5),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_fields_by_hand(name: str) -> None:
    build, size, stride, start = BY_HAND[name]
    found = field_of(build())
    sides = None if stride is None else (stride, stride)
    assert found.status == "EXACT"
    assert found.size_px == (size, size)
    assert (found.stride_px if found.stride_px != (None, None) else None) == sides
    if name != "U-net":
        assert found.start_px == (start, start)


@pytest.mark.parametrize("name", BY_HAND)
def test_gradients_confirm_the_fields(name: str) -> None:
    torch.manual_seed(0)
    checked = check_fields(BY_HAND[name][0](), (3, 32, 32))
    assert checked.disagreements == ()
    assert checked.num_positions > 0


@pytest.mark.parametrize("name", PRESETS)
def test_gradients_confirm_the_fields_of_the_presets(name: str) -> None:
    preset = PRESETS[name]
    network = build_network(preset.config, preset.input_shape, preset.num_classes)
    checked = check_fields(network, preset.input_shape)
    assert checked.disagreements == ()
    assert checked.num_layers >= 3


def test_a_wrong_field_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: a rule that forgets the dilation is found out."""
    from conviction.nets.axis_map import AxisMap

    plain = AxisMap.windowed
    monkeypatch.setattr(
        AxisMap, "windowed", lambda self, kernel, stride, padding, dilation=1: plain(self, kernel, stride, padding, 1)
    )
    assert check_fields(conv(3, dilation=2, padding=2), (3, 16, 16)).disagreements != ()


@pytest.mark.parametrize("padding", [nn.ReflectionPad2d((3, 1, 2, 3)), nn.ReplicationPad2d(3)])
def test_mirrored_padding_gives_a_bound_that_holds(padding: nn.Module) -> None:
    for kernel in (1, 3):
        network = nn.Sequential(padding, conv(kernel))
        assert field_of(network, (3, 16, 16)).status == "UPPER BOUND"
        assert check_fields(network, (3, 16, 16)).disagreements == ()


def test_sides_may_differ() -> None:
    found = field_of(nn.Sequential(nn.Conv2d(3, 3, (1, 5), padding=(0, 2)), nn.MaxPool2d((2, 1))), (3, 16, 20))
    assert (found.size_px, found.stride_px, found.start_px) == ((2, 5), (2, 1), (1, 0.5))
    assert found.as_json() == {"size": [2, 5], "stride": [2, 1], "start": [1.0, 0.5], "status": "EXACT"}


def test_attention_and_rolling_give_a_bound() -> None:
    class Rolled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.roll(images, 3, dims=3)

    found = inspect_network(nn.Sequential(conv(3, padding=1), Rolled()), (3, 16, 16)).layers[-1].receptive_field
    assert (found.status, found.size_px) == ("UPPER BOUND", (18, 18))
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.encoder = nn.Conv2d(3, 8, 4, 4), encoder

        def forward(self, images: Tensor) -> Tensor:
            return self.encoder(self.patches(images).flatten(2).transpose(1, 2))

    found = inspect_network(Transformer(), (3, 16, 16)).layers[-1].receptive_field
    assert (found.status, found.size_px) == ("UPPER BOUND", (16, 16))


def through_a_crop(network: Any, images: Tensor) -> Tensor:
    drawn = torch.zeros_like(images)
    drawn[:, :, 2:-2, 2:-2].copy_(network.narrow(images)[:, :, 2:-2, 2:-2])
    return network.point(drawn[:, :, 4:, 4:])


def turned(network: Any, images: Tensor) -> Tensor:
    drawn = torch.zeros_like(images)
    drawn.transpose(2, 3).copy_(network.tall(images))
    return network.point(drawn)


def odd_and_even(network: Any, images: Tensor) -> Tensor:
    drawn = torch.zeros_like(images)
    drawn[:, :, ::2, ::2] = network.wide(images)[:, :, ::2, ::2]
    return network.point(drawn[:, :, 1::2, 1::2] + network.point(images)[:, :, 1::2, 1::2])


def overwritten(network: Any, images: Tensor) -> Tensor:
    maps = network.wide(images).clone()
    maps[:, :] = network.narrow(images)
    return maps


def half_added(network: Any, images: Tensor) -> Tensor:
    maps = network.join(torch.cat([network.point(images)] * 2, dim=1))
    first, second = maps[:, :2], maps[:, 2:]
    first += network.wide(images)[:, :2]
    return second * 1


EXACT_THOUGH_WRITTEN = {"overwritten": (overwritten, 3), "the other half": (half_added, 1)}


@pytest.mark.parametrize("name", EXACT_THOUGH_WRITTEN)
def test_what_is_not_written_to_or_written_over_keeps_its_own_field(name: str) -> None:
    forward, size = EXACT_THOUGH_WRITTEN[name]
    found = field_of(Written(forward))
    assert (found.status, found.size_px) == ("EXACT", (size, size))
    assert check_fields(Written(forward), (3, 32, 32)).disagreements == ()


@pytest.mark.parametrize(
    "of_the_join", [lambda maps: maps[:, :3], lambda maps: maps.unbind(1)[0], lambda maps: maps.chunk(2, 1)[0]]
)
def test_a_part_of_joined_channels_has_a_bound(of_the_join: Callable[[Tensor], Tensor]) -> None:
    network = Written(lambda n, x: of_the_join(torch.cat([n.narrow(x), n.wide(x)], dim=1)) * 1)
    assert field_of(network).status == "UPPER BOUND"
    assert check_fields(network, (3, 32, 32)).disagreements == ()


def test_channels_shuffled_among_branches_keep_their_field() -> None:
    """As ShuffleNet's: each half of the shuffled channels has some of both branches."""

    def forward(network: Any, images: Tensor) -> Tensor:
        maps = torch.cat([network.pair(images), torch.cat([network.wide(images)] * 2, dim=1)], dim=1)
        shuffled = maps.view(1, 2, 6, 32, 32).transpose(1, 2).reshape(1, 12, 32, 32)
        return shuffled.chunk(2, dim=1)[0]

    found = field_of(Written(forward))
    assert (found.status, found.size_px) == ("EXACT", (5, 5))


@pytest.mark.parametrize(
    "forward",
    [
        through_a_crop,
        turned,
        odd_and_even,
        lambda n, x: n.narrow(x[:, :, 4:28, 4:28]),
        lambda n, x: n.narrow(nn.functional.pad(x, (-3, -3, -3, -3))),
        lambda n, x: nn.functional.interpolate(x[:, :, :4, :4], scale_factor=3.2),
        lambda n, x: nn.functional.interpolate(x[:, :, :4, :4], scale_factor=2.2, mode="bilinear"),
        lambda n, x: n.narrow(x).cumsum(2),
        lambda n, x: torch.cat([n.narrow(x), n.wide(x)], dim=3),
        lambda n, x: n.narrow(x).repeat(1, 1, 2, 1),
        lambda n, x: nn.functional.interpolate(n.narrow(x), size=(50, 50)),
        lambda n, x: nn.functional.interpolate(n.narrow(x), scale_factor=2, mode="bicubic"),
    ],
    ids=[
        *("window of a canvas", "turned canvas", "odd and even", "crop", "negative padding", "by 3.2", "by 2.2"),
        "sums so far",
        "side by side",
        "tiled",
        "to 50 by nearest",
        "bicubic",
    ],
)
def test_other_operations_give_a_bound_that_holds(forward: Callable[[Any, Tensor], Tensor]) -> None:
    network = Written(forward)
    assert field_of(network).status == "UPPER BOUND"
    assert check_fields(network, (3, 32, 32)).disagreements == ()


def test_where_the_first_position_sees_nothing_there_is_no_centre() -> None:
    found = field_of(nn.ConvTranspose2d(3, 4, 1, stride=3, padding=1), (3, 8, 8))
    assert found.start_px == (None, None)
    assert found.as_json() == {"size": 1, "stride": pytest.approx(1 / 3), "start": None, "status": "EXACT"}


blocks = st.fixed_dictionaries(
    {
        "filters": st.integers(1, 6),
        "kernel_px": st.integers(1, 5),
        "stride_px": st.integers(1, 2),
        "padding_px": st.integers(0, 3),
        "normalization": st.sampled_from(["none", "batch", "local_response"]),
        "pooling": st.none()
        | st.fixed_dictionaries(
            {
                "kind": st.sampled_from(["max", "average"]),
                "size_px": st.integers(1, 3),
                "stride_px": st.none() | st.integers(1, 3),
                "ceil_mode": st.booleans(),
            }
        ),
        "order": st.permutations(["convolution", "normalization", "activation", "pooling", "dropout"]),
    }
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(st.lists(blocks, min_size=1, max_size=3), st.integers(12, 24), st.integers(12, 24))
def test_gradients_confirm_the_fields_of_random_networks(
    described: list[dict[str, Any]], height: int, width: int
) -> None:
    from conviction.core.errors import ConfigError

    config = BlocksConfig.model_validate({"blocks": described, "dense": [{"units": 5}]})
    try:
        network = build_network(config, (2, height, width), 3)
    except ConfigError:
        return
    assert check_fields(network, (2, height, width)).disagreements == ()
