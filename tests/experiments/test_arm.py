"""Arms: what they are called, what they need, and how they are given."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from helpers.known_arms import known_arms
from helpers.stopped_runs import Quiet, rows_of, small_run

import saln
from saln.cli import main
from saln.cli.compare_command import COMMAND
from saln.errors import InputError
from saln.experiments import compare
from saln.experiments.arm import (
    BASELINES,
    STANDARD,
    UNIFORM,
    as_methods,
    keeps_all,
    label_of,
    listed_arms,
    read_arm,
)
from saln.experiments.config import Config, from_mapping, load_toml
from saln.experiments.run_folder import read_settings
from saln.selection import SELECTORS, Selection, Selector


class Halves(Selector):
    summary = "for tests"

    def __init__(self, share=0.5, table=None, *, words="x"):
        self.share, self._table, self.words = share, table, words

    def choose(self, candidates, k, generator):
        return Selection(torch.arange(k))


HERE = f"{__name__}.Halves"


def test_every_selector_is_an_arm_beside_standard():
    arms = known_arms()
    assert list(arms) == ["standard", *SELECTORS]
    assert [name for name, arm in arms.items() if arm.keeps_all] == ["standard"]
    assert [name for name, arm in arms.items() if arm.is_baseline] == ["standard", "uniform"]
    assert BASELINES == ("uniform", "standard")
    assert all(arm.label == arm.text == name for name, arm in arms.items())
    assert keeps_all("standard")
    assert not any(keeps_all(name) for name in [*SELECTORS, "standard(x=1)", "of elsewhere"])
    assert [name for name, _ in listed_arms()] == list(arms)


def test_what_an_arm_requires_hangs_on_its_hyperparameters():
    needs = {name for name, arm in known_arms().items() if arm.needs_reference}
    assert needs == {"jest", "rho-loss"}
    assert not read_arm("jest:variant=hard-learner").needs_reference
    assert read_arm("jest:variant=easy-reference").requires == {"labels", "reference_outputs"}
    assert STANDARD.requires == frozenset()
    assert {name for name, arm in known_arms().items() if arm.needs_features} == {
        "saln", "k-center", "facility-location", "coherence", "coherence-batch",
        "balanced-curriculum", "curriculum", "reducible", "herding", "cleanlab-pruned", "divbs",
        "feature-density",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "label"),
    [
        ("jest", "jest"),
        ("jest:chunks=16", "jest"),
        ("jest:chunks=4", "jest(chunks=4)"),
        ("jest:chunks=4.0", "jest(chunks=4)"),
        ("jest( variant = hard-learner , chunks=4)", "jest(chunks=4,variant=hard-learner)"),
        ("top-loss:beta=0.5", "top-loss(beta=0.5)"),
        ("top-loss:beta=none", "top-loss"),
        ("saln:JEST(chunks=4)", "jest(chunks=4)"),
        (saln.JEST(chunks=4), "jest(chunks=4)"),
        (saln.JEST(), "jest"),
        (saln.Uniform, "uniform"),
        (saln.InfoBatch(0.25), "infobatch(prune_ratio=0.25)"),
        (Halves, HERE),
        (Halves(0.25), f"{HERE}(share=0.25)"),
        (f"{__name__}:Halves(share=0.25)", f"{HERE}(share=0.25)"),
        (Halves(words="a b/c"), rf"{HERE}(words=~[0-9a-f]{{8}})"),
        (Halves(table=np.arange(3)), rf"{HERE}(table=~[0-9a-f]{{8}})"),
    ],
)  # fmt: skip
def test_a_label_says_what_differs_from_the_defaults(method, label):
    found = read_arm(method).label
    assert re.fullmatch(re.escape(label).replace(r"\[0\-9a\-f\]\{8\}", "[0-9a-f]{8}"), found)
    assert read_arm(method).label == found  # the same in every run
    assert re.fullmatch(r"[\w.+=(),~-]+", found)


def test_labels_stay_short_and_apart():
    long = [read_arm(Halves(words="w" * 30 + end, share=10.0**200)).label for end in "ab"]
    assert len(set(long)) == 2
    tables = {read_arm(Halves(table=torch.arange(n))).label for n in range(2, 6)}
    assert len(tables) == 4
    longer = dataclasses.replace(UNIFORM, name="n" * 300)
    assert len(longer.label) <= 120
    assert dataclasses.replace(UNIFORM, name="examples").label == "examples()"  # a file of the run


def test_text_makes_the_same_arm_again():
    for method in (saln.JEST(4, "hard-learner"), Halves(0.25, words="a, b"), saln.TopLoss(2)):
        arm = read_arm(method)
        assert read_arm(arm.text) == arm
        assert repr(arm.selector(epochs=3)) == repr(method)
    assert read_arm(Halves(table=np.arange(3))).text is None

    class Local(Halves):
        pass

    assert read_arm(Local).text is None
    assert label_of("somebody:Else(x=1)") == "somebody:Else(x=1)"


def test_a_fresh_selector_each_time_plans_by_the_run():
    arm = read_arm("infobatch:prune_ratio=0.25")
    first, second = arm.selector(epochs=8), arm.selector(epochs=8)
    assert first is not second
    assert (first.prune_ratio, first.epochs) == (0.25, 8)
    assert read_arm("infobatch:epochs=3").selector(epochs=8).epochs == 3
    assert read_arm("infobatch").selector(epochs=8).epochs == 8
    given = Halves(table=[1])
    assert read_arm(given).selector(epochs=2) is not given


def test_a_hyperparameter_without_a_default_must_be_given():
    class Needs(Halves):
        def __init__(self, alpha, *, beta=1):
            super().__init__()
            self.alpha, self.beta = alpha, beta

    with pytest.raises(
        InputError, match=r"needs alpha; it has alpha \(any value; required\); beta"
    ):
        read_arm(Needs)
    arm = read_arm(Needs(alpha=3))
    assert (arm.selector(epochs=2).alpha, arm.values) == (3, {"alpha": 3})


def test_an_object_that_does_not_keep_what_it_was_made_with_is_refused():
    class Forgets(Halves):
        def __init__(self, alpha=1):
            super().__init__()

    with pytest.raises(InputError, match=r"let __init__ keep the value in self\.alpha"):
        read_arm(Forgets(2))
    assert read_arm(Forgets).values == {}


def test_methods_are_text_classes_and_objects():
    assert as_methods("jest(chunks=4, variant=hard-learner),coherence") == (
        "jest(chunks=4, variant=hard-learner)", "coherence",
    )  # fmt: skip
    config = Config(methods=(saln.JEST(chunks=4), saln.Uniform, "coherence", STANDARD))
    assert config.labels == ("jest(chunks=4)", "uniform", "coherence", "standard")
    assert config.methods == ("jest(chunks=4)", "uniform", "coherence", "standard")
    assert Config(methods=saln.Uniform).labels == ("uniform",)
    again = from_mapping(json.loads(json.dumps(config.to_json())), "config.json")
    assert again.labels == config.labels
    kept = Config(methods=[Halves(table=np.arange(3))])
    assert dataclasses.replace(kept, epochs=2).arms[0].selector(epochs=2)._table.tolist() == [
        0,
        1,
        2,
    ]
    assert kept.to_json()["methods"] == kept.labels


@pytest.mark.parametrize("methods", [3, {"saln": 1}, {"saln"}, [3], None, [int], b"saln"])
def test_other_things_are_no_methods(methods):
    with pytest.raises(InputError, match=r"methods=.* is not allowed; give names"):
        Config(methods=methods)


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("jset", r"methods jset is not allowed; give one of standard.*\(did you mean jest\?\)"),
        ("jest:temperature=2", r"jest has no hyperparameter temperature; it has chunks \(a whole"),
        ("coherence:x=2", r"coherence has no hyperparameter x; it has judge \(one of labels"),
        ("jest:chunks=0", "methods chunks=0 of jest is not allowed; give a whole number, at"),
        ("standard:x=1", "standard:x=1 is not allowed; it has no hyperparameters"),
        ("jest:chunks=4,variant=x", "variant=x is no selector; write a NAME"),
        ("jest,jest:chunks=16", "methods=.*jest.*jest.* is not allowed; give at least one"),
        ("uniform,saln:Uniform", "none of them twice"),
        ("", r"methods=\(\) is not allowed; give at least one"),
    ],
)  # fmt: skip
def test_arms_that_cannot_be_are_refused_with_the_cure(methods, said):
    with pytest.raises(InputError, match=said):
        Config(methods=methods).check()
    Config(methods="jest,jest:chunks=4,jest:chunks=8").check()


def test_flags_and_files_say_the_same(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('methods = ["jest:chunks=4", "jest(chunks=2, variant=hard-learner)"]\n')
    expected = ("jest(chunks=4)", "jest(chunks=2,variant=hard-learner)")
    assert load_toml(path).labels == expected
    path.write_text('methods = "jest:chunks=4, jest(chunks=2, variant=hard-learner)"\n')
    assert load_toml(path).labels == expected
    given = COMMAND.read(["--methods", "jest:chunks=4,jest(chunks=2, variant=hard-learner)"])
    assert given.labels == expected


def test_two_arms_of_one_method_train_apart_and_go_on_by_their_labels(tmp_path):
    config = small_run(tmp_path, methods="uniform,jest:chunks=2,jest", epochs=1, seeds=(0,))
    outcome = compare(config, Quiet())
    assert list(outcome.summary.arms) == ["uniform", "jest(chunks=2)", "jest"]
    assert [row["arm"] for row in rows_of(config.out)] == ["uniform", "jest(chunks=2)", "jest"]
    assert (config.out / "checkpoints" / "jest(chunks=2)-seed0.pt").exists()
    assert (config.out / "choices" / "jest(chunks=2)-seed0.npz").exists()
    again = dataclasses.replace(
        config, resume=True, seeds=(0, 1), methods=(saln.Uniform(), saln.JEST(2), "saln:JEST")
    )
    assert len(compare(again, Quiet()).summary.arms["jest"].test_accuracy.per_seed) == 2
    assert read_settings(config.out).labels == config.labels
    other = dataclasses.replace(again, methods="uniform,jest:chunks=3,jest")
    with pytest.raises(InputError, match=r"methods was uniform,jest:chunks=2,jest when the run"):
        compare(other, Quiet())


def test_an_object_that_no_text_names_trains_and_goes_on(tmp_path):
    method = Halves(table=torch.arange(3))
    config = small_run(tmp_path, methods=(method,), epochs=1, seeds=(0,))
    label = read_arm(method).label
    assert list(compare(config, Quiet()).summary.arms) == [label]
    more = dataclasses.replace(config, resume=True, seeds=(0, 1))
    assert list(compare(more, Quiet()).summary.arms) == [label]
    with pytest.raises(InputError, match="is not allowed; give the value itself, of which this is"):
        read_settings(config.out).check()


def test_a_run_with_arms_that_are_not_known_here_is_drawn(tmp_path, monkeypatch):
    """The package of its selector may be gone by then."""
    with monkeypatch.context() as patch:
        patch.setitem(SELECTORS, "elsewhere", Halves)
        methods = "uniform,elsewhere:share=0.25"
        config = small_run(tmp_path, methods=methods, epochs=1, seeds=(0,))
        compare(config, Quiet())
    assert main(["report", str(config.out)]) == 0
    assert "elsewhere(share=0.25)" in (config.out / "report.html").read_text()
    assert config.labels[1] == "elsewhere:share=0.25"  # no such arm is known here
    assert main(["compare", "--resume", "--seeds", "0,1", "--out", str(config.out)]) == 2
