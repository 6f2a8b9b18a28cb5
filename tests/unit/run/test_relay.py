"""What a process tells arrives in the one that started it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conviction.core.records import DataRecord, EpochRecord, RunSummary, Score, Timing
from conviction.fit.watcher import Watcher
from conviction.run import relay
from conviction.run.relay import Receiver, Sender

DATA = DataRecord("digits", "digits", "a", "b", ("null", "eins\u2028"), 1, 8, 8, 3, 2, 1)
SUMMARY = RunSummary("run", "name", "recipe", "running", "now", 0, DATA, 7, num_processes=2)


class Recorder(Watcher):
    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def started(self, *message: object) -> None:
        self.heard.append(("started", *message))

    def note(self, *message: object) -> None:
        self.heard.append(("note", *message))

    def step(self, *message: object) -> None:
        self.heard.append(("step", *message))

    def epoch(self, *message: object) -> None:
        self.heard.append(("epoch", *message))


def test_everything_arrives_in_its_order(tmp_path: Path) -> None:
    recorder = Recorder()
    receiver = Receiver(tmp_path / "pipe", recorder)
    receiver.deliver()
    sender = Sender(tmp_path / "pipe")
    record = EpochRecord(1, 0.1, Score(0.5, 1.25, 2), Score(1 / 3, 0.1, 3))
    sender.started(SUMMARY, 4, "/runs/run")
    sender.note("two\nlines")
    receiver.deliver()
    sender.epoch(record, Timing(1, 0.1, 0.2, 30.0, 400), True)
    receiver.deliver()
    receiver.close()
    assert recorder.heard == [
        ("started", SUMMARY, 4, "/runs/run"),
        ("note", "two\nlines"),
        ("epoch", record, Timing(1, 0.1, 0.2, 30.0, 400), True),
    ]


def test_of_steps_in_quick_succession_the_first_and_the_last_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_STEP_EVERY_S", 3600.0)
    recorder = Recorder()
    receiver = Receiver(tmp_path / "pipe", recorder)
    sender = Sender(tmp_path / "pipe")
    sender._last_step = -3600.0
    for step in range(1, 101):
        sender.step(2, step, 100)
    receiver.deliver()
    receiver.close()
    assert recorder.heard == [("step", 2, 1, 100), ("step", 2, 100, 100)]


def test_half_a_message_waits_for_its_other_half(tmp_path: Path) -> None:
    recorder = Recorder()
    receiver = Receiver(tmp_path / "pipe", recorder)
    pipe = os.open(tmp_path / "pipe", os.O_WRONLY)
    line = json.dumps(["note", "whole"]).encode() + b"\n"
    os.write(pipe, line[:9])
    receiver.deliver()
    assert recorder.heard == []
    os.write(pipe, line[9:])
    os.close(pipe)
    receiver.deliver()
    receiver.close()
    assert recorder.heard == [("note", "whole")]
