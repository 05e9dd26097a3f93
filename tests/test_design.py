"""What docs/design.md shows is what the code is."""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from test_structure import FILES, SOURCE, imported, stage_of

DOCS = Path(__file__).parents[1] / "docs"
SVG = "{http://www.w3.org/2000/svg}"
# Not one of the packages by its folder, but of the command line.
COMMAND_LINE = ("__main__", "terminal")


def package_of(module: str) -> str:
    name = module.split(".")[1]
    return "cli" if name in COMMAND_LINE or name.startswith("cli") else name


def map_parts() -> tuple[set[str], set[tuple[str, str]]]:
    """The packages of the map, and its arrows."""
    root = ElementTree.parse(DOCS / "map.svg").getroot()
    parts = {group.get("id") for group in root.iter(f"{SVG}g") if group.get("class") == "part"}
    arrows = [path.get("id") for path in root.iter(f"{SVG}path") if path.get("class") == "arrow"]
    return parts, {tuple(arrow.split("-")) for arrow in arrows}


def test_the_map_shows_every_package():
    folders = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    parts, _ = map_parts()
    assert parts == folders | {"cli"}
    text = (DOCS / "design.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == parts - {"cli"}


def test_the_arrows_of_the_map_are_the_imports_of_the_code():
    parts, arrows = map_parts()
    real = defaultdict(set)
    for path in FILES:
        module = "saln." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for target in imported(ast.parse(path.read_text())):
            real[package_of(module)].add(package_of(target))
    below = {part: reached(part, arrows) for part in parts}
    for above, under in arrows:
        assert under in real[above], f"{above} does not import {under}"
    for part in parts:
        assert real[part] & parts <= below[part] | {part}, part


def reached(part: str, arrows: set[tuple[str, str]]) -> set[str]:
    """All packages that arrows lead to from one."""
    under = {target for source, target in arrows if source == part}
    return under.union(*(reached(target, arrows) for target in under))


def walks() -> dict[str, list[str]]:
    """The steps of each walk, as they are numbered."""
    text = (DOCS / "design.md").read_text()
    parts = re.split(r"^### The walk of (.+)$", text.split("\n## One contract")[0], flags=re.M)
    return {
        name: re.split(r"^\d+\. ", steps, flags=re.M)[1:]
        for name, steps in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_the_walks_name_code_that_is_there():
    text = (DOCS / "design.md").read_text()
    named = re.findall(r"`(saln[\w.]*):([\w.]+)`", text)
    assert len(named) > 20
    for module, path in named:
        held = importlib.import_module(module)
        for name in path.split("."):
            held = getattr(held, name)
        assert callable(held), f"{module}:{path}"


def test_no_walk_goes_back_up():
    """Each step is in the package of the one before, or in one that this may import."""
    assert list(walks()) == ["the features", "the filter ratio", "the seed"]
    for name, steps in walks().items():
        assert 3 < len(steps) <= 10, name
        modules = [re.match(r"`(saln[\w.]+):", step)[1] for step in steps]
        stages = [stage_of(module) for module in modules]
        assert stages == sorted(stages, reverse=True), f"{name}: {modules}"
        assert modules[0].startswith("saln.cli")
        assert modules[-1].startswith("saln.selection")
