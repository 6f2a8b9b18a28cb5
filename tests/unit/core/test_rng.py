import warnings

import pytest
import torch

from conviction.core.rng import derive, generator, torch_default


def test_a_derived_seed_is_the_upper_63_bits_of_blake2b() -> None:
    # printf '0\x1fshuffle\x1f1' | b2sum -l 64 gives 2e36961e32f73f91.
    assert derive(0, "shuffle", 1) == 0x2E36961E32F73F91 >> 1


def test_seed_purpose_and_epoch_each_change_the_seed_and_keep_it_in_63_bits() -> None:
    words = [
        (seed, purpose, epoch) for seed in (0, 1, -1, 2**70) for purpose in ("shuffle", "mix") for epoch in (0, 1, 10)
    ]
    found = {derive(*each) for each in words}
    assert len(found) == len(words)
    assert all(0 <= seed < 2**63 for seed in found)
    assert derive(1, "0") != derive(10)


def test_a_generator_draws_the_same_whenever_its_purpose_is_the_same() -> None:
    first, again, other = (
        torch.rand(4, generator=generator(3, *purpose)) for purpose in (("mix", 1), ("mix", 1), ("mix", 2))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first, torch.rand(4, generator=torch.Generator().manual_seed(derive(3, "mix", 1))))


def test_torchs_own_generator_is_seeded_inside_and_put_back_afterwards() -> None:
    before = torch.get_rng_state()
    with torch_default(3, "weights"):
        inside = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(inside, torch.rand(4, generator=generator(3, "weights")))


def test_torchs_own_generator_is_put_back_after_an_exception() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="inside"), torch_default(3, "weights"):
        raise ValueError("inside")
    assert torch.equal(torch.get_rng_state(), before)


def test_several_devices_are_all_kept_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    put_back: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: device)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: put_back.append(state))
    monkeypatch.setattr(torch.random, "_fork_rng_warned_already", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch_default(3, "weights"):
            pass
    assert put_back == [0, 1, 2]
