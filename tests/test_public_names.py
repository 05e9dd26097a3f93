"""The names that others may rely on: all of them are listed here, and docs use no others."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.syntax_trees import elsewhere, parsed

import saln

ROOT = Path(__file__).parents[1]
SOURCE = Path(saln.__file__).parent

# A name that goes from here, or changes, breaks somebody's code: say so in the changelog.
PUBLIC = {
    "saln": """
        BalancedCurriculum BatchCoherence Candidates CleanlabPruned Coherence Curriculum
        FacilityLocation FeatureStore FiedlerResult
        FilterSchedule ImageTextJEST InfoBatch JEST KCenter LabelBeliefs LearnerSelected
        PairEmbeddings RHOLoss RS2 SALN SelectedBatches SelectedStream Selection Selector
        StreamBatch TopLoss Uniform extract_features features_as_teacher fiedler
        find_label_issues judge_labels label_beliefs label_sums select suspicious_labels
        testing write_store
    """,
    "saln.cli": "main",
    "saln.curation": "ArraySource SelectOptions SelectionResult select",
    "saln.data": """
        ArrayImages DataSet DatasetRequest Examples ImageSplit LoadedSplits load_dataset
        register_dataset
    """,
    "saln.errors": """
        ConvergenceError DataError InputError MissingExtraError NotJointWarning SalnError
        TrainingError WeightsError
    """,
    "saln.experiments": "Config compare load_preset mean_interval paired_difference summarize",
    "saln.features": """
        BuiltNetwork DatasetExtraction FeatureStore build_backbone extract_features
        nearest_neighbors register_network text_features write_store
    """,
    "saln.integrations": """
        ObserveLosses SelectedDataModule SelectedTrainerMixin extract_features_on_ray prepare
    """,
    "saln.labels": """
        FeatureTeacher LabelBeliefs LabelSums features_as_teacher judge_labels label_sums
    """,
    "saln.loading": """
        FilterSchedule LearnerSelected LearnerSelectedOptions SelectedBatches
        SelectedBatchesOptions SelectedStream SelectedStreamOptions StreamBatch
    """,
    "saln.report": """
        Bars Figure IntervalCurve ReportedRun Table register write_joined write_report
    """,
    "saln.review": """
        ReviewItems ReviewTable add_columns find_label_issues set_fiftyone_fields
    """,
    "saln.selection": """
        BalancedCurriculum BatchCoherence Bounds Candidates CleanlabPruned Coherence Curriculum
        FacilityLocation
        ImageTextJEST InfoBatch JEST
        KCenter PairEmbeddings RHOLoss RS2 SALN SELECTORS Selection Selector TopLoss Uniform
        candidates_needed check_hyperparameters kept_count sigmoid_losses softmax_losses
    """,
    "saln.spectral": "FiedlerResult SimilarityGraph fiedler similarity_graph",
    "saln.testing": "SelectorConformance check_selector example_candidates",
    "saln.training": """
        Ledger TrainSettings build_head build_learner derive_generator evaluate seeded_globally
        train
    """,
}
PUBLIC = {module: names.split() for module, names in PUBLIC.items()}


def path_of(module: str) -> Path:
    folder = SOURCE.joinpath(*module.split(".")[1:])
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def exported(tree: ast.Module) -> list[str] | None:
    """What ``__all__`` lists."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return None


def imported(text: str) -> list[tuple[str, str]]:
    """Module and name of each import from SALN."""
    return [
        (node.module, alias.name)
        for node in ast.walk(elsewhere(ast.parse, text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "saln"
        for alias in node.names
    ]


def test_the_public_names_are_those_listed_here():
    found = {}
    for path in SOURCE.rglob("*.py"):
        names = exported(parsed(path))
        if names is not None:
            parts = path.relative_to(SOURCE.parent).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = sorted(names)
    assert found == {module: sorted(names) for module, names in PUBLIC.items()}
    assert sum(map(len, PUBLIC.values())) <= 150


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_name_is_what_type_checkers_see(module):
    front = importlib.import_module(module)
    homes = {name: home for home, name in imported(path_of(module).read_text())}
    for name in PUBLIC[module]:
        value = getattr(front, name)
        assert value is not None
        if name in homes:
            assert value is getattr(importlib.import_module(homes[name]), name), name
        assert name in dir(front)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = front.nothing


def test_no_module_hides_a_name_that_is_loaded_late():
    for module, names in PUBLIC.items():
        path = path_of(module)
        if path.name == "__init__.py" and "lazy_names" in path.read_text():
            beside = {part.stem for part in path.parent.iterdir()}
            assert not beside & set(names) - {"testing"}, module


def test_a_front_loads_nothing_before_its_names_are_used():
    late = [module for module in PUBLIC if "lazy_names(" in path_of(module).read_text()]
    assert len(late) > 8
    code = f"import sys, {', '.join(late)}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(late) <= set(loaded)
    assert not {"torch", "numpy", "scipy", "sklearn", "matplotlib"} & set(loaded)


def test_docs_and_examples_import_from_fronts_alone():
    checked = 0
    for path in [
        *(ROOT / "docs").glob("*.md"),
        ROOT / "README.md",
        *(ROOT / "examples").glob("*.py"),
    ]:
        text = path.read_text()
        blocks = [text]
        if path.suffix == ".md":
            blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        for module, name in (found for block in blocks for found in imported(block)):
            assert name in PUBLIC.get(module, ()), f"{path.name} imports {name} from {module}"
            checked += 1
    assert checked > 20


def test_benchmarks_import_from_a_front_what_it_has():
    """They measure the inside too; what is public they take as a user would."""
    for path in (ROOT / "benchmarks").rglob("*.py"):
        for module, name in imported(path.read_text()):
            front = ".".join(module.split(".")[:2])
            assert module == front or name not in PUBLIC.get(front, ()), f"{path.name}: {name}"
