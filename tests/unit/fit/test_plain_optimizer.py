"""Training loads torch's compiler nowhere, and the bits stay those of torch's own optimisers."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from conviction.data.pack import load_pack
from conviction.data.source.digits import DigitsConfig
from conviction.fit.optimizer import OPTIMIZERS, build_optimizer
from conviction.fit.plain_optimizer import restore_state, state_of, step


@pytest.mark.parametrize("entry", list(OPTIMIZERS), ids=lambda entry: entry.name)
def test_steps_and_state_are_those_of_torch(entry) -> None:  # type: ignore[no-untyped-def]
    ours = nn.Linear(4, 3)
    theirs = copy.deepcopy(ours)
    plain, wrapped = build_optimizer(entry.config(), ours), build_optimizer(entry.config(), theirs)
    for number in range(3):
        images = torch.randn(5, 4, generator=torch.Generator().manual_seed(number))
        for network in (ours, theirs):
            network.zero_grad()
            network(images).square().sum().backward()
        step(plain)
        wrapped.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert str(state_of(plain)) == str(wrapped.state_dict())
    other = build_optimizer(entry.config(), ours)
    restore_state(other, state_of(plain))
    assert str(other.state_dict()) == str(plain.state_dict())


@pytest.mark.slow
def test_training_loads_neither_the_compiler_nor_what_draws() -> None:
    # Packed here: scikit-learn, from which the digits come, loads scipy.
    load_pack(DigitsConfig())
    script = (
        "import sys\n"
        "from conviction.fit.watcher import Watcher\n"
        "class Watch(Watcher):\n"
        "    def step(self, epoch, num_done, num_steps):\n"
        "        heavy = {'torch._dynamo', 'sympy', 'torchvision', 'torchmetrics', 'matplotlib', 'scipy'}\n"
        "        print(*(heavy & set(sys.modules)))\n"
        "        raise SystemExit\n"
        "from conviction.run import train\n"
        "train('digits', watcher=Watch())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
