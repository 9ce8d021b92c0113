"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import tcd

MODULES = ["tcd", *(module.name for module in pkgutil.walk_packages(tcd.__path__, "tcd."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name: str):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    assert any(test.examples for name in MODULES for test in finder.find(importlib.import_module(name)))
