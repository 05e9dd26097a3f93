"""What docs/design.md shows is what the code is."""

from __future__ import annotations

import importlib
import itertools
import re
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from helpers.syntax_trees import parsed
from test_structure import FILES, SOURCE, imported, stage_of

DOCS = Path(__file__).parents[1] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


def package_of(module: str) -> str:
    return module.split(".")[1]


def map_parts() -> tuple[set[str], set[tuple[str, str]]]:
    """The packages of the map, and its arrows."""
    root = ElementTree.parse(DOCS / "map.svg").getroot()
    parts = {group.get("id") for group in root.iter(f"{SVG}g") if group.get("class") == "part"}
    arrows = [path.get("id") for path in root.iter(f"{SVG}path") if path.get("class") == "arrow"]
    return parts, {tuple(arrow.split("-")) for arrow in arrows}


def test_the_map_shows_every_package():
    folders = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    parts, _ = map_parts()
    assert parts == folders
    text = (DOCS / "design.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == parts


def test_the_arrows_of_the_map_are_the_imports_of_the_code():
    parts, arrows = map_parts()
    real = defaultdict(set)
    for path in FILES:
        module = "saln." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for target in imported(parsed(path)):
            real[package_of(module)].add(package_of(target))
    below = {part: reached(part, arrows) for part in parts}
    for above, under in arrows:
        assert under in real[above], f"{above} does not import {under}"
    for part in parts:
        assert real[part] & parts <= below[part] | {part}, part


def reached(part: str, arrows: set[tuple[str, str]]) -> set[str]:
    """All that arrows lead to from one."""
    found, left = set(), [part]
    while left:
        source = left.pop()
        new = {target for start, target in arrows if start == source} - found
        found |= new
        left += new
    return found


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


def imports_of_files() -> dict[str, set[str]]:
    """Module -> the modules that it imports."""
    return {
        "saln." + ".".join(path.relative_to(SOURCE).with_suffix("").parts): set(
            imported(parsed(path))
        )
        for path in FILES
    }


def test_no_walk_goes_back_up():
    """Each step is in the file of the one before, or in one that this imports, if by others."""
    imports = imports_of_files()
    arrows = {(source, target) for source, targets in imports.items() for target in targets}
    assert list(walks()) == ["the features", "the filter ratio", "the seed"]
    for name, steps in walks().items():
        assert 3 < len(steps) <= 10, name
        modules = [re.match(r"`(saln[\w.]+):", step)[1] for step in steps]
        for above, under in itertools.pairwise(modules):
            assert under == above or under in reached(above, arrows), f"{name}: {above}, {under}"
            assert above == under or above not in reached(under, arrows), (
                f"{name}: {under} imports it"
            )
            assert stage_of(under) <= stage_of(above)
        assert modules[0].startswith("saln.cli")
        assert modules[-1].startswith("saln.selection")
