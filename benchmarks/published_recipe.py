"""The publication behind the speed recipes as a program of its own, on the same pictures: what does it reach here?

    python benchmarks/published_recipe.py [--seed N] [--epochs 9.9] [--train-pictures 50000] [--precision bfloat16]
                                          [--device cuda] [--compile]

Written after K. Jordan, 94 % on CIFAR-10 in 3.29 seconds on a single GPU (2024, arXiv:2404.00498), in plain PyTorch. Of
Conviction it takes the decoded pictures alone, so that its figures tell what Conviction's own `speed-cifar10-sgd`
loses or gains. Needs cifar10-jpeg75.tar.xz in a folder of CONVICTION_DATA. A line of JSON tells what was reached.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from conviction.data.pack import SPLIT_CODES, load_pack
from conviction.run.recipe import load_recipe

WIDTHS, BATCH = (64, 256, 256), 1024
RATE, MOMENTUM, DECAY, BIAS_FACTOR = 11.5, 0.85, 0.0153, 64.0
START, PEAK_AT, END = 0.2, 0.23, 0.07
SMOOTHING, WHITENING_EPSILON, BIAS_EPOCHS = 0.2, 5e-4, 3
SHIFT_PX, LOGIT_SCALE, STATISTICS_SHARE = 2, 1 / 9, 0.4


class Group(nn.Sequential):
    """Two convolutions, the first one pooled."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__(
            convolution(num_in, num_out), nn.MaxPool2d(2), normalisation(num_out), nn.GELU(),
            convolution(num_out, num_out), normalisation(num_out), nn.GELU(),
        )  # fmt: skip


def convolution(num_in: int, num_out: int) -> nn.Conv2d:
    layer = nn.Conv2d(num_in, num_out, 3, padding="same", bias=False)
    nn.init.dirac_(layer.weight.data[:num_in])
    return layer


def normalisation(num_channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(num_channels, eps=1e-12, momentum=STATISTICS_SHARE)
    layer.weight.requires_grad = False
    return layer


class Scaled(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits * LOGIT_SCALE


def build(images: Tensor) -> nn.Sequential:
    """The network, its first kernels whitening the patches of `images`."""
    first = nn.Conv2d(3, 24, 2)
    first.weight.requires_grad = False
    patches = functional.unfold(images, 2).transpose(1, 2).reshape(-1, 12)
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    kernels = (directions / (variances + WHITENING_EPSILON).sqrt()).T.reshape(12, 3, 2, 2)
    first.weight.data = torch.cat([kernels, -kernels])
    channels = (24, *WIDTHS)
    groups = [Group(*pair) for pair in pairwise(channels)]
    head = nn.Linear(WIDTHS[-1], 10, bias=False)
    return nn.Sequential(first, nn.GELU(), *groups, nn.MaxPool2d(3), nn.Flatten(), head, Scaled())


def batches(images: Tensor, labels: Tensor, epoch: int, mirrored: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of whole size; every picture is mirrored in each second epoch."""
    now = torch.where((mirrored ^ (epoch % 2 == 1))[:, None, None, None], images.flip(-1), images)
    padded = functional.pad(now, (SHIFT_PX,) * 4, mode="reflect")
    side = images.shape[-1]
    shifted = torch.empty_like(now)
    places = torch.randint(0, 2 * SHIFT_PX + 1, (len(images), 2), device=images.device)
    for y in range(2 * SHIFT_PX + 1):
        for x in range(2 * SHIFT_PX + 1):
            chosen = (places[:, 0] == y) & (places[:, 1] == x)
            shifted[chosen] = padded[chosen, :, y : y + side, x : x + side]
    order = torch.randperm(len(images), device=images.device).split(BATCH)
    return [(shifted[rows], labels[rows]) for rows in order if len(rows) == BATCH]


def averaged(network: nn.Module, images: Tensor, many_views: bool) -> Tensor:
    """Logits of one view, or of six as the publication weighs them: whole ones count half."""

    def of_both_sides(pictures: Tensor) -> Tensor:
        return (network(pictures).float() + network(pictures.flip(-1)).float()) / 2

    if not many_views:
        return network(images).float()
    padded = functional.pad(images, (1,) * 4, mode="reflect")
    shifted = (of_both_sides(padded[..., :-2, :-2]) + of_both_sides(padded[..., 2:, 2:])) / 2
    return (of_both_sides(images) + shifted) / 2


def rate_at(step: int, num_steps: int) -> float:
    return float(np.interp(step, [0, int(PEAK_AT * num_steps), num_steps], [START, 1, END]))


def train(
    images: Tensor, labels: Tensor, epochs: float, autocast: torch.autocast, is_compiled: bool
) -> tuple[nn.Module, float]:
    """The trained network, and the seconds of its steps."""
    network = build(images[:5000].cpu()).to(images.device, memory_format=torch.channels_last).train()
    scale = BATCH * (1 + 1 / (1 - MOMENTUM))
    rate = RATE / scale
    biases = [weight for layer in network.modules() if isinstance(layer, nn.BatchNorm2d) for weight in [layer.bias]]
    known = {id(weight) for weight in biases}
    others = [weight for weight in network.parameters() if weight.requires_grad and id(weight) not in known]
    decay = DECAY * BATCH / scale
    groups = [
        {"params": biases, "lr": rate * BIAS_FACTOR, "weight_decay": decay / (rate * BIAS_FACTOR)},
        {"params": others, "lr": rate, "weight_decay": decay / rate},
    ]
    optimizer = torch.optim.SGD(groups, momentum=MOMENTUM, nesterov=True)
    usual_rates = [group["lr"] for group in optimizer.param_groups]
    slow = {name: value.clone() for name, value in network.state_dict().items()}
    num_steps = math.ceil(len(images) // BATCH * epochs)
    mirrored = torch.rand(len(images), device=images.device) < 0.5
    compute = torch.compile(network, mode="max-autotune") if is_compiled else network
    if is_compiled:
        # Not timed, as in the publication.
        rehearse(compute, network, images[:BATCH], labels[:BATCH], autocast)
    began = time.perf_counter()
    step = 0
    for epoch in range(math.ceil(epochs)):
        network[0].bias.requires_grad = epoch < BIAS_EPOCHS
        for pictures, targets in batches(images, labels, epoch, mirrored):
            for group, usual in zip(optimizer.param_groups, usual_rates, strict=True):
                group["lr"] = usual * rate_at(step, num_steps)
            with autocast:
                logits = compute(pictures.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits.float(), targets, label_smoothing=SMOOTHING, reduction="sum")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            if step % 5 == 0:
                look_ahead(network, slow, 0.95**5 * (step / num_steps) ** 3)
            if step == num_steps:
                look_ahead(network, slow, 1.0)
                # Waits for a GPU.
                loss.item()
                return network, time.perf_counter() - began
        print(f"epoch {epoch + 1}: {time.perf_counter() - began:.0f} s, loss {loss.item() / BATCH:.4f}", flush=True)
    raise AssertionError("The last step returns.")


def rehearse(compute: Any, network: nn.Sequential, images: Tensor, labels: Tensor, autocast: torch.autocast) -> None:
    """Let everything be compiled, with and without the first bias's gradient, and change nothing."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for trains in (True, False):
        network[0].bias.requires_grad = trains
        for _ in range(3):
            with autocast:
                logits = compute(images.contiguous(memory_format=torch.channels_last))
            functional.cross_entropy(logits.float(), labels).backward()
    network.zero_grad(set_to_none=True)
    network.load_state_dict(before)


@torch.no_grad()
def look_ahead(network: nn.Module, slow: dict[str, Tensor], share: float) -> None:
    """Slow weights, and running statistics, keep `share` of themselves; the fast ones start again from them."""
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            slow[name].lerp_(value, 1 - share)
            value.copy_(slow[name])


@torch.inference_mode()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor, many_views: bool, autocast: torch.autocast) -> float:
    with autocast:
        found = torch.cat([averaged(network, part, many_views).argmax(1) for part in images.split(BATCH)])
    return float((found == labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=float, default=9.9)
    parser.add_argument("--train-pictures", type=int, default=50_000, help="so many, drawn by the seed")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="as the publication does on its GPU")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    pack = load_pack(load_recipe("speed-cifar10-sgd", {"data.path": "cifar10-jpeg75"}).data)
    splits = {}
    for split in ("train", "test"):
        rows = np.flatnonzero(pack.splits == SPLIT_CODES[split])
        pictures = torch.from_numpy(pack.images[rows]).permute(0, 3, 1, 2).contiguous()
        splits[split] = pictures.to(options.device), torch.from_numpy(pack.labels[rows]).to(options.device)
    images, labels = splits["train"]
    kept = torch.randperm(len(images))[: options.train_pictures].sort().values.to(options.device)
    images, labels = images[kept], labels[kept]
    # As the publication's constants are: means and deviations of the channels.
    pixels = images.float() / 255
    mean, deviation = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
    autocast = torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bfloat16")
    network, seconds = train((pixels - mean) / deviation, labels, options.epochs, autocast, options.compile)
    network.eval()
    test_images, test_labels = (splits["test"][0].float() / 255 - mean) / deviation, splits["test"][1]
    one, six = (accuracy(network, test_images, test_labels, views, autocast) for views in (False, True))
    print(json.dumps({**vars(options), "one_view": one, "six_views": six, "train_s": seconds}))


if __name__ == "__main__":
    main()
