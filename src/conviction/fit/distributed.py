"""One training on several processes: each takes a part of every batch, and what they compute is what one would.

Every process draws for the whole batch and keeps what concerns its images; batch normalisation knows the whole batch's
mean and variance; gradients are averaged by numbers of images. What remains is rounding: sums are taken in another
order, which changes float32 results by parts in 10⁷.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import torch
from torch import Tensor, distributed

from conviction.core.records import Score, Timing
from conviction.data.stream import Batch, Share, Stream
from conviction.fit.loop import Trainer
from conviction.fit.plain_parallel import parallel
from conviction.fit.shared_layers import CurrentPlace, share_layers
from conviction.metrics.accuracy import score
from conviction.predict import Predictions, autocast, predict

# A process that dies closes its connections, and the launcher sees it: no wait has to run out. One process may wait
# long for another that writes to a slow disk, or while a laptop sleeps.
_LONGEST_WAIT = timedelta(days=7)


@contextmanager
def process_group(device: torch.device) -> Iterator[Share]:
    """Join the other processes, as torchrun's environment variables say; the share that falls to this one.

    Tensors travel by gloo on the CPU, and by NCCL between GPUs.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=_LONGEST_WAIT)
    yield Share(distributed.get_rank(), distributed.get_world_size())
    # Not after a fault: where the others are gone or wait, taking leave of them may take for ever.
    distributed.destroy_process_group()


@dataclass
class SharedTrainer(Trainer):
    """The trainer of one of several processes. Each must call the same methods in the same order.

    `train` has the process's share. Figures are those of all images, the same in every process.
    """

    _place: CurrentPlace = field(default_factory=CurrentPlace, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        share_layers(self.network, self._place)
        self._parallel = parallel(self.network)

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.place is not None
        self._place.now = batch.place
        num_own = len(batch.labels)
        with autocast(self.train.device, self.precision):
            logits = self._parallel(batch.images)
        # The mean over no images is not a number. Their sum is 0, as are its gradients.
        loss = self.loss(logits.float(), batch.targets) if num_own else logits.float().sum()
        # Gradients are averaged over processes: with this weight, over images.
        (loss * (num_own * distributed.get_world_size() / batch.place.num_images)).backward()
        return loss.detach(), logits.detach()

    def _over_all(self, own: Tensor) -> Tensor:
        total = own.clone()
        distributed.all_reduce(total)
        return total

    def _score(self, stream: Stream) -> Score:
        """Each process predicts some of the batches; the first one puts them together and counts."""
        share = Share(distributed.get_rank(), distributed.get_world_size())
        own = own_batches(stream, share)
        predictions = predict(self.network, own, self.precision) if len(own) else None
        gathered: list[Predictions | None] | None = [None] * share.num_processes if share.rank == 0 else None
        distributed.gather_object(predictions, gathered)
        found: list[Score | None] = [None]
        if gathered is not None:
            parts = [part for part in gathered if part is not None]
            found = [score(torch.cat([part.logits for part in parts]), torch.cat([part.labels for part in parts]))]
        distributed.broadcast_object_list(found)
        assert found[0] is not None
        return found[0]

    def _timing(self, epoch: int, train_s: float, validation_s: float) -> Timing:
        """The memory is that of all processes together."""
        own = super()._timing(epoch, train_s, validation_s)
        return replace(own, peak_memory_bytes=int(self._over_all(torch.tensor(own.peak_memory_bytes))))


def own_batches(stream: Stream, share: Share) -> Stream:
    """The part of a stream in order that falls to a process: whole batches, so that each is the same as for one."""
    bounds = stream.bounds()
    own = share.of(len(bounds) - 1)
    return replace(stream, rows=stream.rows[bounds[own.start] : bounds[own.stop]])
