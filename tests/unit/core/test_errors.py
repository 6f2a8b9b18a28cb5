import errno
from pathlib import Path

import pytest

from conviction.core import errors
from conviction.core.errors import ConfigError, ConvictionError, StorageError, UnknownName, did_you_mean, nearest


def test_an_unknown_name_is_answered_with_the_nearest_known_one() -> None:
    error = UnknownName("network", "resnet81", ["resnet18", "lenet"])
    assert error.message == "No network named 'resnet81'. Did you mean 'resnet18'? Known: lenet, resnet18."
    assert isinstance(error, ConfigError)


def test_nearest_ignores_case_and_answers_in_the_known_spelling() -> None:
    assert nearest("CIFAR10", ["Cifar10", "mnist"]) == "Cifar10"


def test_nothing_is_guessed_where_nothing_is_alike() -> None:
    assert nearest("zzz", ["sgd", "adam"]) is None
    assert did_you_mean("zzz", ["sgd", "adam"]) == "Known: sgd, adam."


def test_the_known_names_may_be_an_iterator_or_empty() -> None:
    assert did_you_mean("sdg", iter(["sgd"])) == "Did you mean 'sgd'? Known: sgd."
    assert did_you_mean("sgd", []) == "Known: none."


def test_every_family_has_a_kind_of_its_own() -> None:
    families = [
        found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, ConvictionError)
    ]
    kinds = [family.kind for family in families]
    assert len(families) == 12
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize(
    ("number", "rule"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission is missing"),
        (errno.EISDIR, "a folder stands where a file is needed"),
        (errno.ENOENT, "its folder does not exist"),
        (errno.ENAMETOOLONG, "the name is longer than the file system allows"),
    ],
)
def test_a_refused_write_says_what_is_wrong_and_where(number: int, rule: str) -> None:
    with pytest.raises(StorageError) as caught, errors.storage_faults(Path("some/place"), " (set CONVICTION_HOME)"):
        raise OSError(number, "what the system says")
    assert caught.value.message.startswith(f"Cannot write some/place: {rule}")
    assert caught.value.message.endswith(" (set CONVICTION_HOME).")


def test_a_fault_that_is_not_of_storage_stays_as_it_is() -> None:
    with pytest.raises(BrokenPipeError), errors.storage_faults(Path("some/place")):
        raise BrokenPipeError(errno.EPIPE, "what the system says")


def test_of_equally_alike_names_the_one_with_the_same_beginning_is_meant() -> None:
    assert nearest("resnet51", ["resnet18", "resnet50", "resnet101"]) == "resnet50"


def test_of_very_many_names_those_most_alike_are_listed() -> None:
    message = did_you_mean("net7", [f"net{number}" for number in range(50)] + ["other"])
    assert message.startswith("Did you mean 'net7'? Known, of 51: ")
    assert "other" not in message
    assert message.endswith(", …")


def test_some_names_are_listed_however_many_there_are() -> None:
    known = [f"net{number}" for number in range(50)] + ["other"]
    listed = did_you_mean("net7", known, always=["other"]).split("51: ")[1].split(", ")
    assert listed[-2:] == ["other", "…"]
    assert len(listed) == 20 + 2
    assert did_you_mean("net7", known[:3], always=known[:1]) == did_you_mean("net7", known[:3])
