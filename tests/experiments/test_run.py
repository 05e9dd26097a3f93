"""A whole comparison, small: what is fair, what repeats, what is written."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import statistics

import numpy as np
import pytest
import torch
from helpers.comparisons import Quiet, rows_of
from helpers.digits import digits_config
from helpers.known_arms import known_arms

from saln.errors import DataError, InputError
from saln.experiments import train_arm as training_module
from saln.experiments.config import Config
from saln.experiments.run import ComparisonOutcome, compare
from saln.features.store import FeatureStore
from saln.loading.epoch_batches import LoadedBatches
from saln.loading.selected_batches import SelectedBatches
from saln.report.page import write_report
from saln.selection import SALN, SELECTORS
from saln.selection.contract import TAUGHT
from saln.training.cost_ledger import ONCE, PHASES

SMALL = {
    "limit": 120, "epochs": 2, "seeds": (0, 1), "batch_size": 8, "reference_epochs": 4,
    "methods": ("standard", "uniform", "saln", "jest"), "image_size": 8,
}  # fmt: skip


@pytest.fixture
def config(tmp_path) -> Config:
    return digits_config(**SMALL, out=tmp_path / "run", cache_dir=tmp_path / "cache")


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> tuple[Config, ComparisonOutcome]:
    """The same, run once for the tests that only read it."""
    folder = tmp_path_factory.mktemp("finished")
    config = digits_config(**SMALL, out=folder / "run", cache_dir=folder / "cache")
    return config, compare(config, Quiet())


@pytest.fixture
def finished(once) -> Config:
    return once[0]


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_the_run_folder_is_complete(once):
    config, outcome = once
    path = config.out
    assert outcome.path == path
    assert outcome.failures == ()
    assert json.loads((path / "summary.json").read_text()) == json.loads(
        json.dumps(outcome.summary.to_json())
    )
    rows = rows_of(path)
    assert [(row["arm"], row["seed"], row["epoch"]) for row in rows] == [
        (arm, seed, epoch) for seed in (0, 1) for arm in config.methods for epoch in (1, 2)
    ]
    for arm in config.methods:
        state = torch.load(path / "checkpoints" / f"{arm}-seed1.pt", weights_only=True)
        assert state["1.weight"].shape == (10, 128)
    environment = json.loads((path / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert json.loads((path / "config.json").read_text())["batch_size"] == 8
    summary = outcome.summary.to_json()
    assert summary["dataset"] == "digits"
    assert summary["seeds"] == [0, 1]
    for arm, entry in summary["arms"].items():
        seconds = entry["seconds"]
        assert (seconds["features"] > 0) == (arm in ("saln", "coherence"))
        assert (seconds["reference"] > 0) == (arm == "jest")
        assert (seconds["score"] > 0) == (arm == "jest")
        assert seconds["total"] == pytest.approx(
            sum(seconds[name] for name in (*ONCE, *PHASES)), rel=0.02, abs=0.3
        )
        assert entry["versus_uniform"] is None or arm != "uniform"


def test_the_parts_add_up_to_the_total_of_every_arm_and_seed(finished):
    """Without the one-off work, whose seconds are in the total by definition."""
    rows = rows_of(finished.out)
    costs = json.loads((finished.out / "progress.json").read_text())["costs"]
    assert len(costs) == len(finished.seeds) * len(finished.methods)
    missing = []
    for cost in costs:
        mine = [row for row in rows if (row["arm"], row["seed"]) == (cost["arm"], cost["seed"])]
        parts = cost["save"] + sum(row["seconds"][name] for row in mine for name in PHASES)
        total = cost["total"] - cost["features"] - cost["reference"]
        assert parts < total * 1.001
        missing.append(0.98 * total - parts)
        assert cost["save"] > 0
        assert cost["rss_bytes"] > 2**26  # torch alone takes more
        assert cost["cuda_bytes"] is None
    # In a moment between two parts a busy machine may run something else, but not in every arm.
    assert statistics.median(missing) < 0.03
    assert max(missing) < 0.5


def test_every_arm_counts_its_own_work(config):
    every = tuple(known_arms())
    counted = dataclasses.replace(config, methods=every, seeds=(0,), learner="pixels")
    outcome = compare(counted, Quiet())
    arms = outcome.summary.to_json()["arms"]
    examples = 97  # 120, less a tenth for validation, less a tenth of that for the reference
    standard, kept = 2 * (examples // 8), 2 * (examples // 40)
    assert arms["standard"]["steps"] == standard
    assert arms["standard"]["examples_backward"] == 8 * standard
    for arm, selector in SELECTORS.items():
        assert arms[arm]["steps"] == kept
        assert arms[arm]["examples_backward"] == 8 * kept
        # Scoring every candidate is the price of those that must see the learner.
        scored = 0 if selector.chooses_before_loading() else 40
        assert arms[arm]["examples_forward"] == (scored + 8) * kept
        seconds = arms[arm]["seconds"]
        assert (seconds["score"] > 0) == (scored > 0)
        assert (seconds["reference"] > 0) == (arm in ("jest", "rho-loss"))
        assert (seconds["features"] > 0) == bool(
            selector.requires & ({"features", "label_confidence"} | TAUGHT)
        )
    assert arms["standard"]["one_off_examples"] == arms["uniform"]["one_off_examples"]
    assert set(arms["uniform"]["one_off_examples"].values()) == {0}
    assert arms["saln"]["one_off_examples"]["features_forward"] == 108
    # The reference: 11 examples, a step of 8 an epoch, for 4 epochs.
    assert arms["jest"]["one_off_examples"] == {
        "features_forward": 0,
        "reference_forward": 4 * 8 + 97,
        "reference_backward": 4 * 8,
    }


def test_the_same_seed_gives_the_same_rows(config, finished):
    compare(config, Quiet())
    assert without_seconds(rows_of(config.out)) == without_seconds(rows_of(finished.out))
    seeds = {row["seed"]: row["test_loss"] for row in rows_of(config.out)}
    assert seeds[0] != seeds[1]


def test_workers_change_nothing(config, tmp_path):
    alone = dataclasses.replace(
        config, seeds=(0,), methods=("uniform", "saln", "jest", "infobatch", "rs2")
    )
    compare(alone, Quiet())
    compare(dataclasses.replace(alone, out=tmp_path / "workers", workers=2), Quiet())
    assert not multiprocessing.active_children()  # the workers of an arm end with it
    assert without_seconds(rows_of(config.out)) == without_seconds(rows_of(tmp_path / "workers"))


def test_an_arm_does_not_depend_on_the_others(finished, tmp_path):
    """Same data, candidates, augmentation and weights, whoever else is compared."""
    fewer = dataclasses.replace(finished, methods=("jest", "saln"), out=tmp_path / "fewer")
    compare(fewer, Quiet())
    for arm in fewer.methods:
        first, second = (
            [row for row in without_seconds(rows_of(path)) if row["arm"] == arm]
            for path in (finished.out, fewer.out)
        )
        assert first == second


def test_arms_see_the_same_candidates_images_and_weights(config, monkeypatch):
    """Spies on what every arm is given; uniform with f = 0 must then equal standard."""
    seen = {}
    original = SelectedBatches.choose

    def spy(self, indices, epoch, step):
        key = (self.seed, epoch, step, self.n_candidates)
        seen.setdefault(key, set()).add(tuple(indices.tolist()))
        return original(self, indices, epoch, step)

    monkeypatch.setattr(SelectedBatches, "choose", spy)
    views = []
    init = LoadedBatches.__init__

    def remember(self, view, sampler, *rest):
        views.append(view)
        init(self, view, sampler, *rest)

    monkeypatch.setattr(LoadedBatches, "__init__", remember)
    one_seed = dataclasses.replace(config, seeds=(0,))
    compare(one_seed, Quiet())
    shared = [orders for key, orders in seen.items() if key[3] == 40]
    assert len(shared) == 4  # 2 epochs of 2 steps
    assert all(len(orders) == 1 for orders in shared)  # one order for uniform, saln and jest
    reference, *arms = views
    assert len(arms) == len(config.methods)
    for view in arms:
        view.set_epoch(2)
        assert torch.equal(view[11][0], arms[0][11][0])
        assert view.examples is arms[0].examples
    rows = set(reference.examples.rows.tolist())
    assert not rows & set(arms[0].examples.rows.tolist())  # held out from every arm


def test_nothing_to_select_makes_uniform_train_like_standard(config):
    outcome = compare(
        dataclasses.replace(config, filter_ratio=0.0, methods=("standard", "uniform")), Quiet()
    )
    arms = outcome.summary.to_json()["arms"]
    for name in ("test_accuracy", "train_loss"):
        assert arms["standard"][name] == arms["uniform"][name]


def test_training_learns(config):
    better = dataclasses.replace(
        config, limit=None, epochs=4, seeds=(0,), methods=("standard",), batch_size=16,
        evaluate_every=4,
    )  # fmt: skip
    arm = compare(better, Quiet()).summary.to_json()["arms"]["standard"]
    assert arm["test_accuracy"]["mean"] > 0.9
    assert arm["test_loss"]["mean"] < 0.5


def test_of_labels_as_they_came_nobody_knows_which_are_wrong(finished):
    rows = rows_of(finished.out)
    assert {row["wrong_label_share_kept"] for row in rows} == {None}
    summary = json.loads((finished.out / "summary.json").read_text())
    assert {arm["wrong_label_share_kept"] for arm in summary["arms"].values()} == {None}
    write_report(finished.out)
    table = (finished.out / "tables" / "counts.csv").read_text().splitlines()
    assert table[0].endswith(",wrong labels kept")
    assert all(line.endswith(",-") for line in table[1:])


def test_label_noise_is_counted_among_the_kept(config):
    noisy = dataclasses.replace(config, label_noise=0.4, seeds=(0,))
    arms = compare(noisy, Quiet()).summary.to_json()["arms"]
    assert arms["standard"]["wrong_label_share_kept"] == pytest.approx(0.4, abs=0.02)
    assert 0.2 < arms["uniform"]["wrong_label_share_kept"] < 0.6


def test_a_diverging_arm_stops_alone_and_keeps_its_rows(config, monkeypatch):
    original = training_module.train

    def bursting(learner, batches, settings, **options):
        """Ruins saln's weights after its first epoch; leaves the other arms alone."""
        sampler = getattr(batches, "batches", None)
        for result in original(learner, batches, settings, **options):
            yield result
            if isinstance(sampler, SelectedBatches) and isinstance(sampler.selector, SALN):
                with torch.no_grad():
                    for parameter in learner.parameters():
                        parameter.fill_(float("nan"))

    monkeypatch.setattr(training_module, "train", bursting)
    outcome = compare(dataclasses.replace(config, seeds=(0,)), Quiet())
    assert len(outcome.failures) == 1
    assert "saln, seed 0: the loss is nan in epoch 2, step 0" in outcome.failures[0]
    rows = rows_of(config.out)
    assert [row["epoch"] for row in rows if row["arm"] == "saln"] == [1]
    assert [row["epoch"] for row in rows if row["arm"] == "jest"] == [1, 2]
    assert "error" in outcome.summary.to_json()["arms"]["saln"]
    assert "error" not in outcome.summary.to_json()["arms"]["jest"]


def test_a_folder_with_another_run_is_refused_before_any_work(config):
    config.out.mkdir()
    (config.out / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds another run; give a new or an empty folder"):
        compare(config, Quiet())
    assert [entry.name for entry in config.out.iterdir()] == ["config.json"]
    assert not config.cache_dir.exists()


def test_a_batch_larger_than_the_data_is_refused_before_the_folder_is_made(config):
    with pytest.raises(InputError, match=r"batch_size=80 at filter_ratio .* needs 400 candidates"):
        compare(dataclasses.replace(config, batch_size=80), Quiet())
    assert not config.out.exists()


def test_a_broken_image_ends_the_run_and_keeps_the_rows(config, image_folder):
    folder = dataclasses.replace(
        config, dataset=f"folder:{image_folder}", methods=("standard",), seeds=(0,), image_size=12
    )
    for path in (image_folder / "red").iterdir():  # with a sound header and end
        content = bytearray(path.read_bytes())
        content[60:-30] = bytes(len(content) - 90)
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"red/\d+\.png cannot be read as an image"):
        compare(folder, Quiet())
    assert (config.out / "config.json").exists()
    assert rows_of(config.out) == []
    assert not (config.out / "summary.json").exists()


def test_stopping_leaves_whole_rows(config, monkeypatch):
    calls = []

    class Interrupts(Quiet):
        def epoch(self, row, epochs):
            calls.append(row.to_json())
            if len(calls) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(config, Interrupts())
    assert rows_of(config.out) == calls


def test_features_are_made_once_for_all_seeds_and_runs(finished, tmp_path):
    stores = list(finished.cache_dir.iterdir())
    assert len(stores) == 1
    second = Quiet()
    other = dataclasses.replace(finished, methods=("saln",), out=tmp_path / "second")
    summary = compare(other, second).summary.to_json()
    assert any("reused" in note for note in second.notes)
    assert list(finished.cache_dir.iterdir()) == stores
    # What they cost when they were made stays in the total.
    seconds = FeatureStore.open(stores[0]).seconds
    assert seconds > 0
    assert summary["arms"]["saln"]["seconds"]["features"] == seconds
    features = np.load(stores[0] / "features.npy")
    assert features.shape == (108, 3 * 8 * 8)


def test_coherence_avoids_wrong_labels_and_pays_for_its_neighbors(config):
    watching = Quiet()
    methods = ("uniform", "coherence", "coherence-batch")
    changed = dataclasses.replace(
        config, methods=methods, label_noise=0.4, limit=900, evaluate_every=2, learner="pixels"
    )
    outcome = compare(changed, watching)
    arms = outcome.summary.to_json()["arms"]
    wrong = {
        arm: np.mean([r["wrong_label_share_kept"] for r in rows_of(config.out) if r["arm"] == arm])
        for arm in methods
    }
    assert wrong["uniform"] > 0.3
    assert wrong["coherence"] < 0.1
    assert wrong["coherence-batch"] < 0.25
    assert arms["uniform"]["seconds"]["features"] == 0
    # The table and the beliefs are one-off work of the arm that needs them.
    features = arms["coherence-batch"]["seconds"]["features"]
    assert arms["coherence"]["seconds"]["features"] > features
    assert sum("labels look wrong" in note for note in watching.notes) == len(config.seeds)


def test_coherence_judges_no_label_of_the_reference_part(config):
    methods = ("jest", "coherence(judge=neighbors)")
    changed = dataclasses.replace(config, methods=methods, seeds=(0,), epochs=1)
    compare(changed, Quiet())
    (table,) = (config.cache_dir).glob("*/neighbours-20-*/manifest.json")
    assert json.loads(table.read_text())["rows"] == 97  # 120, less validation and reference
