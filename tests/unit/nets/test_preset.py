from __future__ import annotations

from typing import Any

import pytest

from conviction.core.errors import ConfigError, UnknownName
from conviction.nets import NETWORKS, PRESETS, BlocksConfig, expand_preset, network_names


@pytest.mark.parametrize("name", PRESETS)
class TestEveryPreset:
    def test_a_name_becomes_the_presets_settings(self, name: str) -> None:
        expanded = expand_preset(name)
        assert BlocksConfig.model_validate(expanded) == PRESETS[name].config.model_copy(update={"preset": name})

    def test_expanding_twice_changes_nothing(self, name: str) -> None:
        once = expand_preset(name)
        assert expand_preset(once) == once

    def test_what_is_saved_reads_back(self, name: str) -> None:
        config = BlocksConfig.model_validate(expand_preset(name))
        assert BlocksConfig.model_validate(expand_preset(config.model_dump(mode="json"))) == config


def test_keys_beside_the_preset_replace_its_own() -> None:
    expanded: Any = expand_preset({"preset": "alexnet-cifar10", "dense": [{"units": 64}], "global_pooling": "average"})
    assert expanded["dense"] == [{"units": 64}]
    assert expanded["global_pooling"] == "average"
    assert [block["filters"] for block in expanded["blocks"]] == [32, 64, 64]


def test_what_was_replaced_stays_replaced() -> None:
    once = expand_preset({"preset": "lenet5", "dense": []})
    assert expand_preset(once) == once


def test_a_familys_name_is_the_family_with_its_defaults() -> None:
    assert expand_preset("blocks") == {"name": "blocks"}


@pytest.mark.parametrize("value", [{"name": "blocks"}, 5, None, [1]])
def test_what_names_no_preset_is_left_alone(value: object) -> None:
    assert expand_preset(value) == value


def test_a_mapping_without_a_name_describes_blocks() -> None:
    assert expand_preset({"blocks": []}) == {"name": "blocks", "blocks": []}
    assert expand_preset({"preset": None, "dense": []}) == {"name": "blocks", "preset": None, "dense": []}


def test_a_presets_name_may_stand_under_name_too() -> None:
    assert expand_preset({"name": "lenet5", "dense": []}) == expand_preset({"preset": "lenet5", "dense": []})


@pytest.mark.parametrize("value", ["lenet", {"preset": "lenet"}])
def test_an_unknown_name_is_answered_with_the_nearest(value: object) -> None:
    with pytest.raises(UnknownName, match=r"No network named 'lenet'\. Did you mean 'lenet5'"):
        expand_preset(value)


@pytest.mark.parametrize("name", [["lenet5"], {"lenet5": 1}, 5, True])
def test_a_preset_that_is_no_text_is_refused(name: object) -> None:
    with pytest.raises(UnknownName, match="No network named"):
        expand_preset({"preset": name})


def test_names_are_presets_then_families() -> None:
    assert network_names() == [*PRESETS, *NETWORKS.names()]
    assert len(set(network_names())) == len(network_names())


@pytest.mark.parametrize(
    "value",
    [
        "torchvision:squeezenet1_1",
        {"name": "torchvision:squeezenet1_1"},
        {"model": "squeezenet1_1"},
        {"name": "torchvision", "model": "squeezenet1_1"},
    ],
)
def test_ways_to_name_a_model_of_torchvision(value: object) -> None:
    assert expand_preset(value) == {"name": "torchvision", "model": "squeezenet1_1"}


def test_a_model_of_torchvision_without_its_family_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean torchvision's, 'torchvision:resnet18'"):
        expand_preset("resnet18")
