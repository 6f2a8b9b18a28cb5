from typing import Annotated, Any, Literal

import pytest

from conviction.core.config import Config, parse
from conviction.core.errors import ConfigError, UnknownName
from conviction.core.registry import OneOf, Registry


class FlipConfig(Config):
    name: Literal["flip"] = "flip"
    p: float = 0.5


class CropConfig(Config):
    name: Literal["crop"] = "crop"
    padding_px: int = 4


def augmentations() -> Registry[Any]:
    registry: Registry[Any] = Registry("augmentation")

    @registry.register("flip", FlipConfig, "Mirrors half of the images.", "a paper")
    def build_flip(config: FlipConfig) -> float:
        return config.p

    @registry.register("crop", CropConfig, "Shifts every image.")
    def build_crop(config: CropConfig) -> int:
        return config.padding_px

    return registry


def test_an_entry_keeps_what_it_was_registered_with() -> None:
    registry = augmentations()
    entry = registry["flip"]
    assert (entry.name, entry.config, entry.summary, entry.reference) == (
        "flip",
        FlipConfig,
        "Mirrors half of the images.",
        "a paper",
    )
    assert entry.build(FlipConfig(p=0.25)) == 0.25
    assert registry.names() == ["flip", "crop"]
    assert [entry.name for entry in registry] == ["flip", "crop"]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName) as caught:
        augmentations()["flop"]
    assert str(caught.value) == "No augmentation named 'flop'. Did you mean 'flip'? Known: crop, flip."


def test_a_name_registered_twice_is_our_own_bug() -> None:
    with pytest.raises(AssertionError, match="'flip' is registered twice"):
        augmentations().register("flip", FlipConfig, "again")(object())


def test_a_config_that_bears_another_name_is_our_own_bug() -> None:
    with pytest.raises(AssertionError, match=r"CropConfig.name is not 'shift'"):
        augmentations().register("shift", CropConfig, "one line")(object())


def recipe_class(registry: Registry[Any]) -> type[Config]:
    class Recipe(Config):
        first: Annotated[Config, OneOf(registry)] = FlipConfig()
        several: tuple[Annotated[Config, OneOf(registry)], ...] = ()
        perhaps: Annotated[Config, OneOf(registry)] | None = None

    return Recipe


def test_the_union_holds_what_is_registered_when_the_schema_is_built() -> None:
    registry = augmentations()

    class BlurConfig(Config):
        name: Literal["blur"] = "blur"

    before = recipe_class(registry)
    registry.register("blur", BlurConfig, "one line")(object())
    assert isinstance(recipe_class(registry).model_validate({"first": "blur"}).first, BlurConfig)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="'flip', 'crop'"):
        before.model_validate({"first": "blur"})


def test_a_bare_name_a_mapping_and_a_config_mean_the_same() -> None:
    recipe = recipe_class(augmentations())
    spelled = [{"name": "crop"}, "crop", CropConfig()]
    found = [recipe.model_validate({"first": value, "several": [value], "perhaps": value}) for value in spelled]
    assert found[0] == found[1] == found[2]
    assert found[0].model_dump()["several"] == ({"name": "crop", "padding_px": 4},)


def test_the_settings_of_the_choice_survive_writing_and_reading() -> None:
    recipe = recipe_class(augmentations())
    chosen = recipe.model_validate({"first": {"name": "crop", "padding_px": 2}, "several": ["flip", "crop"]})
    dumped = chosen.model_dump(mode="json")
    assert dumped == {
        "first": {"name": "crop", "padding_px": 2},
        "several": [{"name": "flip", "p": 0.5}, {"name": "crop", "padding_px": 4}],
        "perhaps": None,
    }
    assert recipe.model_validate(dumped) == chosen
    assert recipe.model_validate_json(chosen.model_dump_json()) == chosen


def test_the_json_schema_lists_the_choices_by_their_names() -> None:
    schema = recipe_class(augmentations()).model_json_schema()
    bare, spelled_out = schema["properties"]["first"]["anyOf"]
    assert bare == {"enum": ["flip", "crop"]}
    assert spelled_out["discriminator"] == {
        "propertyName": "name",
        "mapping": {"flip": "#/$defs/FlipConfig", "crop": "#/$defs/CropConfig"},
    }
    assert set(schema["$defs"]["CropConfig"]["properties"]) == {"name", "padding_px"}


@pytest.mark.parametrize("value", ["corp", {"name": "corp"}, {"name": "corp", "padding_px": 4}])
def test_an_unknown_choice_is_answered_with_the_nearest(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(recipe_class(augmentations()), {"several": ["flip", value]}, "recipe.yaml")
    assert str(caught.value).splitlines()[1] == (
        "  several.1: no choice named 'corp'. Did you mean 'crop'? Known: flip, crop."
    )


@pytest.mark.parametrize("value", [None, 3, ["flip"], {"name": None}, {}])
def test_a_value_that_names_no_choice_is_refused_at_its_key(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(recipe_class(augmentations()), {"first": value}, "recipe.yaml")
    assert str(caught.value).splitlines()[1].startswith("  first: ")
