"""The examples in the docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import tcd
import training
from demo import reproduce

PACKAGES = (tcd, training, reproduce)
MODULES = [
    name
    for package in PACKAGES
    for name in (package.__name__, *(m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")))
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name: str):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_there_are_examples(package):
    finder, names = doctest.DocTestFinder(), [name for name in MODULES if name.startswith(package.__name__)]
    assert any(test.examples for name in names for test in finder.find(importlib.import_module(name)))
