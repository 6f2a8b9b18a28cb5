"""From measurements to ratios and verdicts, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peers.verdict import compare_losses, draw, markdown, summarise
from PIL import Image
from targets import PEER_TARGETS, TARGETS, page


def measured(images_per_s: float, mean_loss: float, **more: Any) -> dict[str, Any]:
    return {
        "images_per_s": images_per_s,
        "first_step_s": 4.0,
        "mean_loss": mean_loss,
        "logits_difference": 1e-6,
        "versions": {"torch": "2.15.0"},
        "precision": "bfloat16",
        **more,
    }


ROUNDS = [
    {"conviction": measured(300, 2.00), "pytorch": measured(100, 2.01)},
    {"conviction": measured(200, 1.90), "pytorch": measured(100, 1.89)},
    {"conviction": measured(240, 1.95), "pytorch": measured(100, 1.95)},
]


def section(peers: dict[str, Any]) -> dict[str, Any]:
    spread = {"median": 240.0, "smallest": 200.0, "largest": 300.0}
    found = {
        "warmup_steps": 20,
        "measured_steps": 100,
        "num_rounds": 3,
        "ours": {"precision": "bfloat16", "images_per_s": spread, "first_step_s": spread},
        "peers": peers,
        "rounds": ROUNDS,
    }
    return {"pictures": "some pictures", "decoded": True, "batch_size": 128, "networks": {"lab-c": found}}


def test_ratios_are_those_within_a_round() -> None:
    found = summarise(ROUNDS, "lab-c")["pytorch"]
    assert found["ratio"] == {"median": 2.4, "smallest": 2.0, "largest": 3.0}
    assert found["target"] == PEER_TARGETS["lab-c"]["pytorch"] == 2.5
    assert found["images_per_s"]["median"] == 100


def test_losses_within_their_noise_agree() -> None:
    # Differences −0.01, 0.01 and 0: their mean is 0, their deviation 0.01.
    found = summarise(ROUNDS, "lab-c")["pytorch"]["loss"]
    assert found["difference"] == pytest.approx(0, abs=1e-12)
    assert found["standard_error"] == pytest.approx(0.01 / 3**0.5)
    assert found["agrees"] is True


@pytest.mark.parametrize(("shift", "agrees"), [(0.036, True), (0.038, False), (-0.036, True), (-0.038, False)])
def test_losses_beyond_three_standard_errors_and_the_tolerance_disagree(shift: float, agrees: bool) -> None:
    # 0.02 + 3·0.01/√3 = 0.0373.
    theirs = [2.0, 1.9, 1.8]
    ours = [2.0 - 0.01 + shift, 1.9 + 0.01 + shift, 1.8 + shift]
    assert compare_losses(ours, theirs)["agrees"] is agrees


def test_a_loss_that_is_no_number_disagrees() -> None:
    assert compare_losses([2.0, 1.9], [float("nan"), 1.9])["agrees"] is False


def test_a_single_round_is_not_judged() -> None:
    found = compare_losses([2.0], [3.0])
    assert (found["agrees"], found["standard_error"]) == (None, None)
    assert "not judged" in "\n".join(markdown(section(summarise(ROUNDS[:1], "lab-c"))))


def test_misses_are_stated_as_misses() -> None:
    shown = "\n".join(markdown(section(summarise(ROUNDS, "lab-c"))))
    assert "| 2.40 (2.00 … 3.00) × | ≥ 2.5 × | **missed** |" in shown
    assert "| agree |" in shown
    assert "open JPEG files" not in shown
    before = {**section(summarise(ROUNDS, "lab-c")), "decoded": False}
    assert "open JPEG files" in "\n".join(markdown(before))


def test_another_network_is_said_to_be_one() -> None:
    rounds = [{**each, "pytorch": measured(100, 2.0, logits_difference=0.5)} for each in ROUNDS]
    assert "**another network**: logits differ by 0.5" in "\n".join(markdown(section(summarise(rounds, "lab-c"))))


def test_the_page_sets_targets_beside_figures() -> None:
    environment = {
        "processor": "P",
        "threads": 2,
        "instruction_sets": ["avx2"],
        "precision": "bfloat16",
        "device": "cpu",
    }
    sections: dict[str, Any] = {
        "peers": section(summarise(ROUNDS, "lab-c")),
        "start_and_epoch": {"command_first_step_s": [2.5, 2.9, 4.0], "peak_memory_bytes": 1.7e9},
        "share_of_ceiling": {"share_of_matrix_product": {"median": 0.8, "smallest": 0.78, "largest": 0.84}},
        "frozen_head": {"ratios": [12.0, 9.9, 8.5]},
    }
    rows = [target.row(sections)[1:] for target in TARGETS]
    assert rows[0] == ("≥ 2.5 ×", "2.40 (2.00 … 3.00) ×", "**missed**")
    assert rows[1] == ("≥ 2.7 ×", "–", "not measured")
    assert ("≥ 0.75", "0.80 (0.78 … 0.84)", "met") in rows
    assert rows[-3:] == [
        ("≥ 10 ×", "9.90 (8.50 … 12.00) ×", "**missed**"),
        ("≤ 3 s", "2.90 (2.50 … 4.00) s", "met"),
        ("≤ 1.5 GB", "1.70 GB", "**missed**"),
    ]
    assert "lacks" not in page(sections, environment)
    assert "lacks" in page(sections, {**environment, "precision": "float32"})
    assert "\nP, 2 threads, avx2. Written" in page(sections, environment)
    on_a_gpu = page(sections, {**environment, "device": "cuda", "device_name": "G"})
    assert "\nG, beside P, 2 threads, avx2. Written" in on_a_gpu


def test_a_miss_is_set_beside_what_the_ceiling_allows() -> None:
    sections: dict[str, Any] = {
        "peers": section(summarise(ROUNDS, "lab-c")),
        # Lab C's network takes 133.9 MFLOP an image.
        "share_of_ceiling": {"ceiling_gflop_a_second": [33.48]},
    }
    # PyTorch makes 100 images a second, Conviction 240.
    assert TARGETS[0].row(sections)[-1] == (
        "**missed**: that would be 250 images a second; the ceiling (below) allows 250, of which 96 % are reached"
    )


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    draw(section(summarise(ROUNDS, "lab-c")), "Title", tmp_path / "peers.png")
    with Image.open(tmp_path / "peers.png") as drawn:
        colours = {colour for _, colour in drawn.convert("RGB").getcolors(2**20) or ()}
    # Ours and theirs, in colours that colour-blind readers tell apart.
    assert {(0, 114, 178), (213, 94, 0)} <= colours
