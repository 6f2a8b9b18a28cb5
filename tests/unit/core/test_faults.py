"""`parse` and what it says: every path is the one that the user wrote."""

import re
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator, model_validator

from conviction.core.config import Config, parse
from conviction.core.errors import ConfigError
from conviction.core.registry import OneOf, Registry

SCHEDULES: Registry[Any] = Registry("schedule")
OPTIMIZERS: Registry[Any] = Registry("optimizer")


class StepConfig(Config):
    name: Literal["step"] = "step"
    step: int = 10
    factors: tuple[float, float] = (0.1, 0.1)


class CosineConfig(Config):
    name: Literal["cosine"] = "cosine"
    warmup_epochs: int = Field(default=0, ge=0)


for config in (StepConfig, CosineConfig):
    SCHEDULES.register(config.model_fields["name"].default, config, "one line")(object())


class SgdConfig(Config):
    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(default=0.1, gt=0)
    schedule: Annotated[Config, OneOf(SCHEDULES)] = CosineConfig()


class AdamConfig(Config):
    name: Literal["adam"] = "adam"
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)


for config in (SgdConfig, AdamConfig):
    OPTIMIZERS.register(config.model_fields["name"].default, config, "one line")(object())


class LayerConfig(Config):
    kernel: int | tuple[int, int] = 3
    padding: Literal["same", "valid"] = "same"


class Recipe(Config):
    optimizer: Annotated[Config, OneOf(OPTIMIZERS)] = Field(default="sgd")
    second: Annotated[Config, OneOf(OPTIMIZERS)] | None = None
    layers: list[LayerConfig] = []
    stages: dict[str, LayerConfig] = {}
    batch_size: int | Literal["auto"] = "auto"
    epochs: int = 3

    @field_validator("epochs")
    @classmethod
    def _odd(cls, epochs: int) -> int:
        if epochs % 2 == 0:
            raise ValueError(f"`epochs` must be odd, but got {epochs}")
        return epochs

    @model_validator(mode="after")
    def _small(self) -> "Recipe":
        if self.epochs > 100:
            raise ValueError("the whole is too large")
        return self


def refused(settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(Recipe, settings, "recipe.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"optimizer": {"name": "sgd", "learning_rte": 1}},
            "optimizer.learning_rte: unknown key. Did you mean 'learning_rate'? Known: learning_rate, name, schedule.",
        ),
        (
            {"second": {"name": "adam", "beta": 1, "learning_rate": 1}},
            "second.beta: unknown key. Did you mean 'betas'? Known: betas, learning_rate, name.",
        ),
        (
            {"optimizer": {"name": "sgd", "schedule": {"name": "cosine", "warmup": 1}}},
            "optimizer.schedule.warmup: unknown key. Did you mean 'warmup_epochs'? Known: name, warmup_epochs.",
        ),
        (
            {"layers": [{}, {"kernl": 3}]},
            "layers.1.kernl: unknown key. Did you mean 'kernel'? Known: kernel, padding.",
        ),
        (
            {"stages": {"first": {"kernl": 3}}},
            "stages.first.kernl: unknown key. Did you mean 'kernel'? Known: kernel, padding.",
        ),
        (
            {"epoch": 3},
            "epoch: unknown key. Did you mean 'epochs'? Known: batch_size, epochs, layers, optimizer, second, stages.",
        ),
    ],
)
def test_an_unknown_key_gives_its_path_and_the_nearest_right_name(settings: Any, line: str) -> None:
    assert refused(settings) == f"recipe.yaml is refused:\n  {line}"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"optimizer": {"name": "sgd", "learning_rate": "fast"}},
            "optimizer.learning_rate: must be a number, but got 'fast'.",
        ),
        (
            {"optimizer": {"name": "sgd", "learning_rate": 0}},
            "optimizer.learning_rate: must be greater than 0, but got 0.",
        ),
        (
            {"optimizer": {"name": "sgd", "learning_rate": float("inf")}},
            "optimizer.learning_rate: must be a finite number, but got inf.",
        ),
        (
            {"optimizer": {"name": "sgd", "schedule": {"name": "step", "step": "x"}}},
            "optimizer.schedule.step: must be a whole number, but got 'x'.",
        ),
        (
            {"optimizer": {"name": "adam", "learning_rate": 1, "betas": [0.9, []]}},
            "optimizer.betas.1: must be a number, but got [].",
        ),
        (
            {"layers": [{"padding": "smae"}]},
            "layers.0.padding: must be 'same' or 'valid', but got 'smae'. Did you mean 'same'?",
        ),
        ({"optimizer": {"name": "adam"}}, "optimizer.learning_rate: this key is needed and missing."),
        ({"optimizer": "adam"}, "optimizer.learning_rate: this key is needed and missing."),
        ({"optimizer": {"learning_rate": 1}}, "optimizer: its `name` is missing. Known: adam, sgd."),
        ({"optimizer": "sdg"}, "optimizer: no choice named 'sdg'. Did you mean 'sgd'? Known: sgd, adam."),
        ({"second": {"name": "adm"}}, "second: no choice named 'adm'. Did you mean 'adam'? Known: sgd, adam."),
        ({"epochs": 4}, "epochs: `epochs` must be odd, but got 4"),
        ({"epochs": 101}, "the whole is too large"),
        ({3: 4}, "3: a key must be text."),
    ],
)
def test_a_wrong_value_gives_its_path_the_rule_and_what_was_got(settings: Any, line: str) -> None:
    assert refused(settings) == f"recipe.yaml is refused:\n  {line}"


def test_what_all_alternatives_refuse_is_one_fault_with_several_rules() -> None:
    lines = refused({"batch_size": "atuo", "layers": [{"kernel": [1, "x"]}]}).splitlines()
    assert lines == [
        "recipe.yaml is refused (3 faults):",
        "  layers.0.kernel: must be a whole number, but got [1, 'x'].",
        "  layers.0.kernel.1: must be a whole number, but got 'x'.",
        "  batch_size: must be a whole number, or 'auto', but got 'atuo'. Did you mean 'auto'?",
    ]


@pytest.mark.parametrize("values", [[0.9], [0.9, 0.99, 0.999]])
def test_a_list_of_another_length_is_refused_with_the_right_one(values: list[float]) -> None:
    line = refused({"optimizer": {"name": "adam", "learning_rate": 1, "betas": values}}).splitlines()[1]
    assert re.fullmatch(
        rf"  optimizer\.betas: must be a list of (at most )?2, but got {re.escape(str(values))}\.", line
    )


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"epochs": True}, "epochs"),
        ({"optimizer": {"name": "sgd", "learning_rate": False}}, "optimizer.learning_rate"),
        ({"batch_size": True}, "batch_size"),
    ],
)
def test_true_and_false_are_no_numbers(settings: Any, path: str) -> None:
    assert re.search(rf"{re.escape(path)}: must be a (whole )?number, but got (true|false)\.$", refused(settings))


def test_true_is_no_number_within_a_list_either() -> None:
    settings = {"optimizer": {"name": "adam", "learning_rate": 1, "betas": [True, 0.9]}}
    assert "optimizer.betas: must be a number, but got [True, 0.9]." in refused(settings)


def test_several_faults_stand_in_one_message_a_line_each() -> None:
    message = refused({"epochs": "many", "layers": [{"kernl": 1}], "optimizer": {"name": "sgd", "learning_rate": -1}})
    assert message.splitlines() == [
        "recipe.yaml is refused (3 faults):",
        "  optimizer.learning_rate: must be greater than 0, but got -1.",
        "  layers.0.kernl: unknown key. Did you mean 'kernel'? Known: kernel, padding.",
        "  epochs: must be a whole number, but got 'many'.",
    ]


def test_settings_that_are_no_mapping_are_refused_without_a_path() -> None:
    assert refused([1]).splitlines()[1].startswith("  must be keys and values, but got [1].")


def test_a_long_value_is_shown_shortened() -> None:
    message = refused({"epochs": "x" * 10_000})
    assert len(message) < 300
    assert "xxx" in message


def test_good_settings_are_parsed_and_frozen() -> None:
    recipe = parse(Recipe, {"optimizer": {"name": "sgd", "schedule": "step"}, "epochs": 5}, "recipe.yaml")
    assert recipe.optimizer == SgdConfig(schedule=StepConfig())
    with pytest.raises(ValueError, match="frozen"):
        recipe.epochs = 7  # type: ignore[misc]
