"""What every peer is asked to do, and how it tells how long it took. Only the standard library: all can import it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
SIDE_PX, PADDING_PX, NUM_CLASSES, NUM_WORKERS = 32, 4, 10, 2


@dataclass(frozen=True)
class Task:
    """One epoch over the pictures of `folder`/train in full batches, from the weights in `start`.

    `started` is when the process was asked for, in seconds since 1970. The clock runs from the end of step
    `warmup_steps` to the end of the last of `measured_steps` more.
    """

    network: str
    recipe: str
    folder: str
    start: str
    seed: int
    warmup_steps: int
    measured_steps: int
    started: float
    batch_size: int = 128
    learning_rate: float = 0.01
    momentum: float = 0.9

    @property
    def num_steps(self) -> int:
        return self.warmup_steps + self.measured_steps

    @property
    def num_pictures(self) -> int:
        return self.num_steps * self.batch_size

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


def read_task() -> Task:
    """The task that the command line names."""
    return Task(**json.loads(Path(sys.argv[1]).read_text()))


@dataclass
class Clock:
    """Told of each step's end, and of its loss where that is known; `wait` ends when the device has done its work."""

    task: Task
    wait: Callable[[], object] = lambda: None
    losses: list[float] = field(default_factory=list)
    num_done: int = 0
    first_step_s: float = 0.0
    began: float = 0.0
    ended: float = 0.0

    def step_done(self, loss: float | None = None) -> None:
        self.num_done += 1
        if loss is not None:
            self.losses.append(loss)
        if self.num_done == 1:
            self.first_step_s = time.time() - self.task.started
        if self.num_done == self.task.warmup_steps:
            self.wait()
            self.began = time.perf_counter()
        if self.num_done == self.task.num_steps:
            self.wait()
            self.ended = time.perf_counter()

    def report(self, mean_loss: float | None = None, **more: Any) -> None:
        """Print what was measured as the last line; `mean_loss` is over all steps, where no single ones were told."""
        assert self.num_done == self.task.num_steps, f"{self.num_done} steps instead of {self.task.num_steps}"
        found = {
            "images_per_s": self.task.measured_steps * self.task.batch_size / (self.ended - self.began),
            "first_step_s": self.first_step_s,
            "mean_loss": sum(self.losses) / len(self.losses) if mean_loss is None else mean_loss,
            **more,
        }
        print(json.dumps(found))
