"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import conviction

MODULES = [name for _, name, _ in pkgutil.walk_packages(conviction.__path__, "conviction.") if "__main__" not in name]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) >= 10
