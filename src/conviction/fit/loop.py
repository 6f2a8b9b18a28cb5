"""The loop: steps make epochs, and each epoch ends with a validation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from conviction.core import rng
from conviction.core.device import CompileMode, peak_memory_bytes
from conviction.core.errors import TrainingDiverged
from conviction.core.records import EpochRecord, Score, Timing
from conviction.data.stream import Batch, Stream
from conviction.fit.compiled import CompiledForward
from conviction.fit.lookahead import Lookahead
from conviction.fit.loss import Loss
from conviction.fit.plain_optimizer import step
from conviction.fit.progressive import SizeStep, shrunk, size_in_epoch
from conviction.fit.schedule import Schedule
from conviction.metrics.accuracy import score
from conviction.nets.bias_epochs import set_trained
from conviction.predict import autocast, predict

# How many steps may pass before the losses are looked at: reading each one would stop a GPU.
_CHECK_EVERY_STEPS = 20


@dataclass
class Trainer:
    """Everything that an epoch needs. Its random numbers depend on `seed` and the epoch's number alone.

    `note` hears where what was to be compiled is not.
    """

    network: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    loss: Loss
    train: Stream
    validation: Stream
    seed: int
    precision: str = "float32"
    gradient_clip_norm: float | None = None
    measure_train_fixed: bool = False
    progressive_sizes: Sequence[SizeStep] = ()
    lookahead: Lookahead | None = None
    compile: CompileMode = "none"
    note: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        # Not shuffled, it is not augmented.
        self._fixed_order = replace(self.train, batch_size=self.validation.batch_size)
        num_images = self.train.bounds()[1]
        is_compiled = self.compile != "none"
        self._compiled = CompiledForward(self.network, self.compile, num_images, self.note) if is_compiled else None

    def compile_step(self, epoch: int = 1) -> float | None:
        """Compile for the batches of an epoch; the seconds that it took, None where they are not computed so."""
        if self._compiled is None:
            return None
        shuffled = self.train.shuffled(rng.generator(self.seed, "compile"), epoch, self.seed)
        images = shrunk(next(shuffled), size_in_epoch(self.progressive_sizes, epoch)).images
        self.network.train()
        set_trained(self.network, epoch)
        with autocast(self.train.device, self.precision):
            can = self._compiled.can(images)
        return self._compiled.compile_s if can else None

    def epoch_zero(self) -> tuple[EpochRecord, Timing]:
        """What the untrained network makes of the validation split; about ln K nats where it is indifferent.

        Raises: TrainingDiverged where its loss is not finite.
        """
        start = time.perf_counter()
        record = EpochRecord(0, self._rate(0), self._validate(0), train_fixed=self._train_fixed(0))
        return record, self._timing(0, 0.0, time.perf_counter() - start)

    def train_epoch(self, epoch: int, on_step: Callable[[int, int], None]) -> tuple[EpochRecord, Timing]:
        """One pass over the training split, then a validation. `on_step` hears of the steps done and of their number.

        Raises: TrainingDiverged where a loss is NaN or infinite.
        """
        start = time.perf_counter()
        ran = self._pass(epoch, on_step)
        trained = time.perf_counter()
        last_step = epoch * self.train.num_batches - 1
        record = EpochRecord(epoch, self._rate(last_step), self._validate(epoch), ran, self._train_fixed(epoch))
        self.schedule.observe(record)
        return record, self._timing(epoch, trained - start, time.perf_counter() - trained)

    def _pass(self, epoch: int, on_step: Callable[[int, int], None]) -> Score:
        num_steps = self.train.num_batches
        first_step = (epoch - 1) * num_steps
        size_px = size_in_epoch(self.progressive_sizes, epoch)
        losses: list[Tensor] = []
        weighted = torch.zeros((), dtype=torch.float64, device=self.train.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.train.device)
        self.network.train()
        set_trained(self.network, epoch)
        if self.lookahead:
            self.lookahead.begin_epoch(epoch)
        with rng.torch_default(self.seed, "dropout", epoch):
            shuffled = self.train.shuffled(rng.generator(self.seed, "shuffle", epoch), epoch, self.seed)
            for index, batch in enumerate(shuffled):
                self._set_rates(first_step + index)
                loss, logits = self.take_step(shrunk(batch, size_px))
                if self.lookahead:
                    self.lookahead.after_step(first_step + index + 1)
                losses.append(loss)
                # Weighted by the batch's size: a mean of means would over-weight a short last batch.
                weighted += loss.double() * len(batch.labels)
                correct += (logits.argmax(dim=1) == batch.labels).sum()
                if (index + 1) % _CHECK_EVERY_STEPS == 0 or index + 1 == num_steps:
                    self._refuse_divergence(losses, epoch, first_step)
                on_step(index + 1, num_steps)
        if self.lookahead:
            self.lookahead.end_epoch()
        count = len(self.train)
        return Score(int(self._over_all(correct)) / count, self._over_all(weighted).item() / count, count)

    def take_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One step on a batch: its loss as a single number, and its logits (B, K), both without gradients."""
        self.network.zero_grad(set_to_none=True)
        loss, logits = self._gradients(batch)
        if self.gradient_clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.gradient_clip_norm)
        step(self.optimizer)
        return loss, logits

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Leave the weights' gradients behind; loss and logits of this process's images, without gradients."""
        with autocast(self.train.device, self.precision):
            logits = (self._compiled or self.network)(batch.images)
        loss = self.loss(logits.float(), batch.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), logits.detach()

    def _over_all(self, own: Tensor) -> Tensor:
        """The sum over all processes; here there is one."""
        return own

    def _validate(self, epoch: int) -> Score:
        found = self._score(self.validation)
        if not math.isfinite(found.loss):
            num_steps = self.train.num_batches
            place = f"after epoch {epoch}, step {num_steps} of {num_steps}" if epoch else "before the first step"
            raise TrainingDiverged(
                f"The validation loss became {found.loss} {place}, at learning rate "
                f"{self._rate(epoch * num_steps - 1):g}. Lower optimizer.learning_rate, or set "
                "fit.gradient_clip_norm. The weights of the best epoch are kept."
            )
        return found

    def _train_fixed(self, epoch: int) -> Score | None:
        return self._score(self._fixed_order) if self.measure_train_fixed else None

    def _score(self, stream: Stream) -> Score:
        predictions = predict(self.network, stream, self.precision)
        return score(predictions.logits, predictions.labels)

    def _refuse_divergence(self, losses: list[Tensor], epoch: int, first_step: int) -> None:
        recent = self._over_all(torch.stack(losses[-_CHECK_EVERY_STEPS:]))
        bad = (~torch.isfinite(recent)).nonzero()
        if len(bad) == 0:
            return
        index = len(losses) - len(recent) + int(bad[0])
        raise TrainingDiverged(
            f"The loss became {recent[bad[0]].item()} in epoch {epoch}, step {index + 1} of {self.train.num_batches}, "
            f"at learning rate {self._rate(first_step + index):g}. Lower optimizer.learning_rate, or set "
            "fit.gradient_clip_norm. The weights of the best epoch are kept."
        )

    def _rate(self, step: int) -> float:
        return float(self._base_rates[0] * self.schedule.factor(max(0, step)))

    def _set_rates(self, step: int) -> None:
        factor = self.schedule.factor(step)
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * factor

    def _timing(self, epoch: int, train_s: float, validation_s: float) -> Timing:
        peak = peak_memory_bytes()
        if self.train.device.type == "cuda":
            peak += torch.cuda.max_memory_allocated(self.train.device)
        rate = len(self.train) / train_s if train_s else 0.0
        return Timing(epoch, train_s, validation_s, rate, peak)
