"""The recipe: every stage's settings in one typed description of one training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from conviction.augment import AUGMENTATIONS, AugmentConfig
from conviction.core.config import Config, parse, parse_assignment, read_mapping, read_yaml, with_overrides, write_yaml
from conviction.core.device import CompileName, DeviceName, MemoryFormatName, PrecisionName
from conviction.core.errors import ConfigError, NewerFormat, UnknownName
from conviction.core.registry import OneOf
from conviction.data.source import SOURCES, SourceConfig
from conviction.data.source.folder import FolderConfig
from conviction.data.split import SplitConfig
from conviction.data.standardize import STANDARDIZATIONS, ChannelConfig, StandardizeConfig
from conviction.fit.loss import LOSSES, CrossEntropyConfig, LossConfig
from conviction.fit.optimizer import OPTIMIZERS, OptimizerConfig, SgdConfig
from conviction.fit.progressive import SizeStep
from conviction.fit.schedule import SCHEDULES, ConstantConfig, ScheduleConfig
from conviction.fit.stopping import StoppingConfig
from conviction.nets import NETWORKS, PRESETS, NetworkConfig, expand_preset
from conviction.nets.named import TORCHVISION
from conviction.predict import ONE_VIEW, ViewsConfig
from conviction.recipes import recipe_names, recipe_text

RECIPE_FORMAT = 1
# The settings that are any text: on a command line they are not read as YAML, where 2024 is a number and # a remark.
TEXT_KEYS = frozenset(
    {
        *("name", "description", "data.path", "split.file"),
        *("network.weights", "network.weights_sha256", "network.model"),
        *(f"data.{part}_column" for part in ("file", "image", "label", "split", "group")),
    }
)


class FitConfig(Config):
    """The training loop."""

    epochs: int = Field(20, ge=1, le=100_000)
    batch_size: int = Field(128, ge=1, le=1_000_000)
    precision: PrecisionName = Field(
        "auto", description="auto: bfloat16 where the processor computes in it, unless float32 is measured to be faster"
    )
    memory_format: MemoryFormatName = Field(
        "auto", description="How maps lie in memory: a pixel's channels or a channel's pixels together. auto: measured"
    )
    compile: CompileName = Field(
        "auto",
        description="Whether the training step is compiled. fused: by torch.compile; cuda_graphs: replayed by a GPU, "
        "too; auto: in long trainings, where that is measured to repay compiling",
    )
    device: DeviceName = Field("auto", description="auto: the GPU where there is one")
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="null: OMP_NUM_THREADS, or one for each core; where cores share their arithmetic units, measured",
    )
    gradient_clip_norm: float | None = Field(None, gt=0, description="Scale gradients down to this norm")
    progressive_sizes: tuple[SizeStep, ...] = Field(
        (), description="Epochs on smaller pictures, before those on whole ones"
    )
    measure_train_fixed: bool = Field(
        False, description="After each epoch, measure the training split on fixed weights too"
    )
    cache_frozen: bool = Field(
        True, description="Keep in the cache folder what frozen layers make of each picture, where that stays the same"
    )
    fixed_views: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="With frozen layers: so many augmented views of each training picture are drawn once, and the "
        "epochs take turns with them; null: a new view in each epoch",
    )


class Recipe(Config):
    """One training, described completely."""

    format: int = Field(RECIPE_FORMAT, ge=1, description="Version of this file format")
    name: str = Field("recipe", min_length=1, max_length=80)
    description: str = ""
    seed: int = Field(0, ge=0, lt=2**63)
    data: Annotated[SourceConfig, OneOf(SOURCES)] = FolderConfig()
    split: SplitConfig = SplitConfig()
    standardize: Annotated[StandardizeConfig, OneOf(STANDARDIZATIONS)] = ChannelConfig()
    augment: tuple[Annotated[AugmentConfig, OneOf(AUGMENTATIONS)], ...] = ()
    network: Annotated[
        NetworkConfig,
        OneOf(NETWORKS, shorthands=tuple(PRESETS), pattern=f"^{TORCHVISION}"),
        BeforeValidator(expand_preset),
    ]
    loss: Annotated[LossConfig, OneOf(LOSSES)] = CrossEntropyConfig()
    optimizer: Annotated[OptimizerConfig, OneOf(OPTIMIZERS)] = SgdConfig()
    schedule: Annotated[ScheduleConfig, OneOf(SCHEDULES)] = ConstantConfig()
    stopping: StoppingConfig = StoppingConfig()
    test_time: ViewsConfig = ONE_VIEW
    fit: FitConfig = FitConfig()

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Recipe:
        warmup = self.schedule.warmup_epochs
        if warmup >= self.fit.epochs:
            raise ValueError(
                f"`schedule.warmup_epochs < fit.epochs` must hold, but got {warmup:g} and {self.fit.epochs}."
            )
        lookahead = self.optimizer.lookahead
        if lookahead and lookahead.start_epochs >= self.fit.epochs:
            raise ValueError(
                "`optimizer.lookahead.start_epochs < fit.epochs` must hold, or it never begins, but got "
                f"{lookahead.start_epochs} and {self.fit.epochs}."
            )
        small = sum(step.epochs for step in self.fit.progressive_sizes)
        if small >= self.fit.epochs:
            raise ValueError(
                "of the epochs, some must be left for whole pictures: `fit.progressive_sizes` takes "
                f"{small} of {self.fit.epochs}."
            )
        if [augmentation.name for augmentation in self.augment].count("alternating_flip") > 1:
            raise ValueError("augment: a second `alternating_flip` mirrors back what the first one mirrored.")
        is_fixed = self.network.freeze and self.fit.cache_frozen and not self.fit.progressive_sizes
        if self.fit.fixed_views is not None and not (self.augment and is_fixed):
            raise ValueError(
                "fit.fixed_views is for frozen layers whose pictures are augmented: set network.freeze and augment, "
                "and leave fit.cache_frozen true and fit.progressive_sizes empty."
            )
        return self

    def settings(self) -> dict[str, Any]:
        """Every setting as JSON's types; `load_recipe` reads it back to an equal recipe."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Every setting as YAML; `load_recipe` reads it back to an equal recipe."""
        return write_yaml(self.settings())


def load_recipe(recipe: str | Path | Mapping[str, Any] | Recipe, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from its built-in name, a YAML file, a mapping, or itself, with dotted keys replaced.

    Raises: ConfigError that names every fault, NewerFormat where a later version of Conviction wrote it.

    >>> load_recipe("digits", {"fit.epochs": 3}).fit.epochs
    3
    """
    settings, where = _read(recipe)
    if "network" in settings and overrides:
        settings = {**settings, "network": expand_preset(settings["network"])}
    settings = with_overrides(_with_named_defaults(settings, overrides or {}), overrides or {})
    found = settings.get("format", RECIPE_FORMAT)
    if isinstance(found, int) and found > RECIPE_FORMAT:
        raise NewerFormat(
            f"{where} has format {found}, and this version of Conviction reads up to {RECIPE_FORMAT}: "
            "update Conviction."
        )
    return parse(Recipe, settings, where)


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """What `--set` was given, `KEY=VALUE` each, as overrides. Raises: ConfigError.

    >>> parse_overrides(["fit.epochs=3", "data.path=2024"])
    {'fit.epochs': 3, 'data.path': '2024'}
    """
    return dict(parse_assignment(text, TEXT_KEYS) for text in assignments)


def _with_named_defaults(settings: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the default choice named for each stage that is left out and yet has a part replaced."""
    named = dict(settings)
    for stage in {str(key).split(".")[0] for key in overrides if "." in str(key)} - set(settings):
        default = Recipe.model_fields[stage].default if stage in Recipe.model_fields else None
        if isinstance(default, Config) and "name" in type(default).model_fields:
            named[stage] = {"name": default.model_dump()["name"]}
    return named


def _read(recipe: str | Path | Mapping[str, Any] | Recipe) -> tuple[dict[str, Any], str]:
    if isinstance(recipe, Recipe):
        return recipe.settings(), f"The recipe {recipe.name!r}"
    if isinstance(recipe, Mapping):
        return dict(recipe), "The recipe"
    if not isinstance(recipe, str | Path):
        raise ConfigError(
            "A recipe is a built-in name, a YAML file, a mapping or a Recipe, but got "
            f"{type(recipe).__name__} ({recipe!r})."
        )
    if isinstance(recipe, Path) or _looks_like_a_file(recipe):
        return read_mapping(Path(recipe).expanduser()), str(recipe)
    if recipe not in recipe_names():
        here = [str(path) for ending in ("", ".yaml", ".yml") if (path := Path(f"./{recipe}{ending}")).is_file()]
        raise UnknownName("recipe", recipe, [*recipe_names(), *(f"./{path}" for path in here)])
    value = read_yaml(recipe_text(recipe), f"The recipe {recipe!r}")
    assert isinstance(value, dict)
    return value, f"The recipe {recipe!r}"


def _looks_like_a_file(recipe: str) -> bool:
    return recipe.endswith((".yaml", ".yml")) or "/" in recipe or "\\" in recipe


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Conviction recipe"}
