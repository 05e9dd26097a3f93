"""What holds for every file: direction of imports, names, sizes, what an import costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from code_measures import measure
from helpers.syntax_trees import elsewhere, parsed

import saln
from saln.selection import SELECTORS

SOURCE = Path(saln.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
# A module imports only from its own stage and from stages before it.
STAGES = (
    "_lazy", "errors", "messages", "converter", "files", "randomness", "distributed",
    "threads", "_extras", "_torchvision", "_optimizers", "data", "features", "spectral", "labels",
    "selection", "testing", "loading", "integrations", "curation", "review", "training",
    "experiments", "report", "cli", "__main__",
)  # fmt: skip


@pytest.fixture(scope="module")
def measures():
    return elsewhere(measure, SOURCE)


def stage_of(module: str) -> int:
    return STAGES.index(module.split(".")[1])


def imported(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("saln."):
            names.append(node.module)
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.startswith("saln.")]
    return names


def test_imports_go_one_way():
    checked = 0
    for path in FILES:
        if path == SOURCE / "__init__.py":
            continue  # the public names, loaded when used
        module = "saln." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for target in imported(parsed(path)):
            assert stage_of(target) <= stage_of(module), f"{module} imports {target}"
            checked += 1
    assert checked > 50


def test_importing_saln_loads_nothing_heavy():
    code = "import sys, saln; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "saln" in found
    heavy = {"torch", "torchvision", "numpy", "scipy", "sklearn", "matplotlib", "rich", "tyro"}
    assert not heavy & set(found)


WORK = """
import sys

import torch

import saln
from saln._optimizers import LBFGS, SGD
from saln._torchvision import torchvision

saln.SALN, saln.JEST, saln.SelectedBatches
weight = torch.nn.Parameter(torch.ones(2))
for optimizer in (SGD([weight], lr=0.1), LBFGS([weight])):
    def loss():
        optimizer.zero_grad()
        total = weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    optimizer.load_state_dict(optimizer.state_dict())
assert len(saln.data.load_dataset("digits", limit=50).train.labels) == 45
print(*sys.modules)
"""


def test_work_loads_no_extra_no_drawing_and_no_compiler():
    found = subprocess.run(
        [sys.executable, "-c", WORK], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"torch", "saln.selection.jest"} <= set(found)
    assert not {"datasets", "matplotlib", "tyro", "rich", "jinja2", "sklearn"} & set(found)
    # Torchvision's import and torch's optimizers want it; it is asked when it is needed.
    assert "torchvision.ops.roi_align" in found
    assert "torch._dynamo" not in found
    from torch._dynamo.utils import is_compile_supported as real
    from torchvision.ops.roi_align import is_compile_supported as asked

    assert asked("cpu") is real("cpu")


def test_files_stay_readable():
    root = Path(__file__).parents[1]
    others = [
        path for name in ("tests", "benchmarks", "examples") for path in (root / name).rglob("*.py")
    ]
    assert len(others) > 50
    for path in (*FILES, *others):
        assert len(path.read_text().splitlines()) <= 500, path


def test_functions_are_short_and_take_few_parameters(measures):
    assert len(measures.long_functions) <= 5, measures.long_functions
    assert len(measures.many_parameters) <= 4, measures.many_parameters
    counts = [int(entry.rsplit(": ", 1)[1]) for entry in measures.many_parameters]
    assert max(counts, default=0) <= 12, measures.many_parameters


def test_classes_have_few_methods(measures):
    wide = [entry for entry in measures.wide_classes if not entry.startswith("testing.py:")]
    assert len(wide) <= 2, wide  # the conformance kit has a method a test


def test_a_name_means_one_module_and_one_class(measures):
    assert measures.names_twice == []
    assert measures.classes_twice == []


def test_hard_lines_say_why(measures):
    assert measures.comment_share >= 0.04


def test_every_selector_has_an_oracle_of_its_own():
    """Its tests compare it with a definition in tests/oracles that knows nothing of saln."""
    tests = Path(__file__).parent
    used = {}
    for name in SELECTORS:
        path = tests / "selection" / f"test_{name.replace('-', '_')}.py"
        assert path.exists(), f"{name} is registered without {path.name}"
        text = path.read_text()
        oracles = re.findall(r"^from oracles(?:\.| import )(\w+)", text, re.MULTILINE)
        assert oracles, f"{path.name} imports no oracle"
        for oracle in oracles:
            assert (tests / "oracles" / f"{oracle}.py").exists()
            first = used.setdefault(oracle, name)
            # A variant, such as jest and jest-x, may share the definition.
            assert name.startswith(first), f"{oracle} serves {first} and {name}"
    for path in (tests / "oracles").glob("*.py"):
        assert not any(target.startswith("saln") for target in imported(parsed(path)))


def test_every_selector_goes_through_the_conformance_tests():
    from selection.test_conformance import CASES

    assert {type(case()) for case in CASES.values()} >= set(SELECTORS.values())
