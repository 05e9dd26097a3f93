"""The conda recipe asks for what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import saln

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[1]
PATH = ROOT / "recipe" / "recipe.yaml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Name on the package index -> on conda-forge, where it is another.
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base", "xxhash": "python-xxhash"}


@pytest.fixture(scope="module")
def recipe():
    return yaml.safe_load(PATH.read_text())


def test_its_requirements_are_those_of_the_package(recipe):
    wanted = {"python": PROJECT["requires-python"]}
    for text in PROJECT["dependencies"]:
        name, bound = re.fullmatch(r"([\w-]+)(>=[\d.]+)", text).groups()
        wanted[CONDA.get(name, name)] = bound
    assert dict(line.split(" ") for line in recipe["requirements"]["run"]) == wanted
    assert f"python {PROJECT['requires-python']}" in recipe["requirements"]["host"]


def test_its_facts_are_those_of_the_package(recipe):
    assert recipe["context"]["version"] == saln.__version__
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert recipe["about"]["license"] == PROJECT["license"]
    (script,) = recipe["build"]["python"]["entry_points"]
    assert dict([script.split(" = ")]) == PROJECT["scripts"]


def test_its_builder_can_read_it():
    """The builder refuses fields and requirements that it does not know."""
    builder = pytest.importorskip("rattler_build", reason="py-rattler-build is not installed")
    parsed = builder.Stage0Recipe.from_yaml(PATH.read_text())
    (rendered,) = parsed.render(builder.VariantConfig())
    assert rendered.recipe.to_dict()["package"] == {"name": "saln", "version": saln.__version__}
