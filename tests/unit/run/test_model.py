"""What travels with a saved network, and what becomes of files that were changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conviction import Run, resume, train
from conviction.core.errors import ConfigError, ConvictionError, NewerFormat, RunError
from conviction.data.standardize import Standardization, Whitening
from conviction.fit.checkpoint import load_tensors, save_tensors
from conviction.run.model import load_model, load_standardization

QUICK = {"fit.epochs": 1, "network": "perceptron"}
EVERY = ["scale", "center", "channel", "per_image", "zca", "pca"]


def trained(standardize: str = "zca") -> Run:
    return train("digits", {**QUICK, "standardize": standardize})


def change_model(run: Run, change: Any) -> None:
    about = json.loads(run.folder.model.read_text())
    change(about)
    run.folder.model.write_text(json.dumps(about))


@pytest.mark.parametrize("name", EVERY)
def test_a_saved_network_predicts_as_it_was_validated(name: str) -> None:
    run = trained(name)
    best = run.best
    assert best is not None
    again = run.evaluate("validation")
    assert (again.accuracy, again.loss) == (best.validation.accuracy, pytest.approx(best.validation.loss, abs=1e-6))
    has_tensors = name in ("zca", "pca")
    assert run.folder.preprocessing.exists() == has_tensors
    prediction = run.predict(np.zeros((8, 8), np.uint8))[0]
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_files_of_format_1_are_read() -> None:
    run = trained("channel")
    expected = load_standardization(run.folder)
    assert isinstance(expected, Standardization)

    def as_it_was(about: dict[str, Any]) -> None:
        about["format"] = 1
        by_channel = about["preprocessing"].pop("standardization")
        del about["preprocessing"]["picture_size_px"]
        about["preprocessing"] |= {"mean": by_channel["mean"], "deviation": by_channel["deviation"]}

    change_model(run, as_it_was)
    assert set(json.loads(run.folder.model.read_text())["preprocessing"]) == {
        "color",
        "resize",
        "max_image_pixels",
        "mean",
        "deviation",
    }
    assert load_standardization(run.folder) == expected
    assert run.evaluate("validation").accuracy == run.evaluations[0].accuracy


def test_a_resumed_run_has_the_standardisation_that_it_began_with() -> None:
    run = trained("zca")
    first = load_standardization(run.folder)
    assert isinstance(first, Whitening)
    # As fitted with another number of threads: not the same bits.
    changed = Whitening(first.input_shape, first.mean + 1e-6, first.components, first.gains, first.contrast)
    save_tensors(run.folder.preprocessing, changed.tensors(), {})
    change_model(run, lambda about: about["preprocessing"].update(standardization=changed.record().model_dump()))
    summary = json.loads(run.folder.summary_file.read_text())
    run.folder.summary_file.write_text(json.dumps({**summary, "status": "interrupted"}))
    assert resume(run).summary.status == "finished"
    assert load_standardization(run.folder) == changed


class TestDamage:
    def refused(self, run: Run, match: str, kind: type[ConvictionError] = RunError) -> None:
        with pytest.raises(kind, match=match):
            load_model(run.folder)

    def test_tensors_that_are_missing(self) -> None:
        run = trained()
        run.folder.preprocessing.unlink()
        self.refused(run, r"preprocessing\.safetensors is missing")

    def test_a_flipped_bit(self) -> None:
        run = trained()
        content = bytearray(run.folder.preprocessing.read_bytes())
        content[-100] ^= 1
        run.folder.preprocessing.write_bytes(content)
        self.refused(run, "checksum does not match")

    def test_a_truncated_file(self) -> None:
        run = trained()
        content = run.folder.preprocessing.read_bytes()
        run.folder.preprocessing.write_bytes(content[: len(content) // 2])
        self.refused(run, r"preprocessing\.safetensors is damaged")

    def test_a_pickle_is_not_even_opened(self, tmp_path: Path) -> None:
        run = trained()
        torch.save({"mean": torch.zeros(64)}, run.folder.preprocessing)
        self.refused(run, r"preprocessing\.safetensors is damaged")

    def test_tensors_of_another_run(self) -> None:
        run, other = trained(), train("digits", {**QUICK, "standardize": "zca", "seed": 1})
        run.folder.preprocessing.write_bytes(other.folder.preprocessing.read_bytes())
        self.refused(run, "not those that the model was saved with")

    def test_tensors_of_another_shape(self) -> None:
        run = trained()
        tensors, _ = load_tensors(run.folder.preprocessing)
        save_tensors(run.folder.preprocessing, {**tensors, "gains": tensors["gains"][:-1]}, {})
        self.refused(run, "needs tensors of the shapes")

    @pytest.mark.parametrize(
        ("changed", "match"),
        [
            ({"name": "whitning"}, "whitening"),
            ({"sha256": "../../etc/passwd"}, "sha256"),
            ({"num_components": 0}, "num_components"),
            ({"num_components": 10**9}, "num_components"),
            ({"input_shape": [3, 8, 8]}, "`input_shape`"),
            ({"input_shape": [1, -8, 8]}, "`input_shape`"),
            ({"contrast": {"scale": 0.0, "floor": 0.1, "mean": 0.0, "deviation": 1.0}}, "scale"),
            ({"code": "import os"}, "code: unknown key"),
        ],
    )
    def test_a_changed_description(self, changed: dict[str, Any], match: str) -> None:
        run = trained()
        change_model(run, lambda about: about["preprocessing"]["standardization"].update(changed))
        self.refused(run, match)

    def test_another_number_of_channels(self) -> None:
        run = trained("channel")
        three = {"name": "channel", "mean": [0.5] * 3, "deviation": [1.0] * 3}
        change_model(run, lambda about: about["preprocessing"].update(standardization=three))
        self.refused(run, "standardisation must be one of pictures of `input_shape`")

    def test_a_deviation_of_zero(self) -> None:
        run = trained("channel")
        change_model(run, lambda about: about["preprocessing"]["standardization"].update(deviation=[0.0]))
        self.refused(run, "deviation")

    def test_a_later_format(self) -> None:
        run = trained("channel")
        change_model(run, lambda about: about.update(format=4))
        self.refused(run, "reads up to 3", NewerFormat)


def test_a_whitened_network_does_not_slide_over_a_larger_picture() -> None:
    model = trained("zca").model()
    with pytest.raises(ConfigError, match="fitted to pictures of 1×8×8 and cannot be applied to 1×16×16"):
        model.dense_map(np.zeros((16, 16), np.uint8))
