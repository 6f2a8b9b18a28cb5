"""`conviction bench` as a user meets it."""

from __future__ import annotations

import pytest

from command import conviction


@pytest.mark.slow
def test_it_measures_and_says_so() -> None:
    finished = conviction("bench", "digits", "--seconds", "1", "--batch", "16", "--json")
    assert finished.code == 0, finished.err
    found = finished.json
    training = found["training"]
    assert (training["recipe"], training["batch_size"], training["input"]) == ("digits", 16, [1, 8, 8])
    rate, flop = training["step_images_per_s"]["median"], training["step_flop"]
    assert training["step_flops"] == pytest.approx(rate * flop / 16)
    possible = {
        one["operation"]: one["flops"]["median"]
        # Of the convolutions the faster one comes last.
        for one in sorted(found["ceilings"], key=lambda one: one["flops"]["median"])
        if one["precision"] == training["precision"]
    }
    assert set(possible) == {"matrix product", "convolution"}
    assert training["share_of_ceiling"] == pytest.approx(training["step_flops"] / max(possible.values()))
    assert training["share_of_matrix_product"] == pytest.approx(training["step_flops"] / possible["matrix product"])
    assert possible[training["ceiling_operation"].split(",")[0]] == max(possible.values())
    assert finished.err.count("measuring ") == 4


@pytest.mark.slow
def test_a_person_reads_what_a_share_means() -> None:
    finished = conviction("bench", "perceptron", "--seconds", "1", "--set", "fit.precision=float32")
    assert finished.code == 0, finished.err
    for part in (
        "matrix product",
        "convolution, channels_last",
        "copying memory",
        "Whole loop",
        "Share of the ceiling:",
    ):
        assert part in finished.out
    assert "1 thread," in finished.out
    # Two for each of 2·784·300 + 3·300·10 products.
    assert "958,800 FLOP for a picture" in finished.out
