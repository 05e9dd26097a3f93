"""The set-up of a comparison: what is needed, and features that stay on disk."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers.stopped_runs import Quiet, small_run

import saln
from saln.errors import InputError
from saln.experiments.arm import read_arm
from saln.experiments.run import compare
from saln.experiments.run_folder import read_settings
from saln.experiments.shared_inputs import (
    StoredRows,
    candidates_of_step,
    load_data,
    make_inputs,
)
from saln.features import default_backbone, write_store
from saln.features.default_backbone import DefaultBackbone
from saln.training.learner_networks import build_learner


def inputs_of(tmp_path, methods):
    config = small_run(tmp_path, methods=methods)
    data = load_data(config)
    return data, make_inputs(config, data, 16, torch.device("cpu"), Quiet())


def test_nothing_is_made_that_no_arm_asks_for(tmp_path):
    data, inputs = inputs_of(tmp_path, "standard,uniform,rho-loss")
    assert (inputs.features, inputs.neighbors) == (None, None)
    assert len(data.reference) > 0
    assert inputs.cost(read_arm("rho-loss")) == (0.0, 0)
    data, inputs = inputs_of(tmp_path, "jest:variant=hard-learner,saln")
    assert len(data.reference) == 0  # that variant asks no reference model
    assert inputs.features.shape == (len(data.train), 3 * 16 * 16)
    assert inputs.neighbors is None
    assert inputs.cost(read_arm("saln")) == (inputs.seconds, len(data.train))
    assert inputs.cost(read_arm("uniform")) == (0.0, 0)


def test_the_rows_are_those_of_the_training_examples(tmp_path):
    """Also where some examples are set aside for a reference model."""
    data, inputs = inputs_of(tmp_path, "coherence(judge=neighbors),rho-loss")
    assert len(data.train) < len(data.train_and_reference)
    images = [data.train.images.load(int(row)) for row in data.train.rows]
    brightness = [np.asarray(image, dtype=np.float64).mean() for image in images]
    means = inputs.features[:].astype(np.float64).mean(axis=1)
    assert np.corrcoef(brightness, means)[0, 1] > 0.999
    assert inputs.neighbors.indices.shape[0] == len(data.train)
    assert inputs.neighbors.indices.max() < len(data.train)


def test_weights_that_fit_neither_network_are_said_of_both(tmp_path):
    """Before a feature is computed; one that fits is not named."""
    for width in (3, 4):
        state = {"0.0.0.weight": torch.zeros(width)}
        torch.save(state, tmp_path / f"{width}.pt")
    network, _ = build_learner("small-cnn", 10, image_size=16, pretrained=False)
    right = tmp_path / "right.pt"
    torch.save(network.state_dict(), right)

    def load(learner, backbone):
        load_data(
            dataclasses.replace(
                small_run(tmp_path, methods="saln"),
                learner="small-cnn", backbone="small-cnn", weights=learner,
                backbone_weights=backbone,
            )
        )  # fmt: skip

    with pytest.raises(InputError, match=r"^weights: .*3\.pt.*; and backbone_weights: .*4\.pt"):
        load(tmp_path / "3.pt", tmp_path / "4.pt")
    with pytest.raises(InputError, match=r"^weights file .*4\.pt does not fit the network"):
        load(right, tmp_path / "4.pt")
    load(right, right)


@pytest.fixture
def stored(tmp_path):
    rows = np.random.default_rng(0).random((60_000, 64), dtype=np.float32).astype(np.float16)
    return rows, write_store(tmp_path / "store", rows, np.arange(60_000) % 10)


def test_stored_rows_are_read_when_they_are_asked_for(stored):
    rows, store = stored
    which = np.arange(0, 60_000, 2)
    found = StoredRows(store, which)
    assert (len(found), found.shape, found.ndim, found.dtype) == (30_000, (30_000, 64), 2, "f2")
    assert found.size == 30_000 * 64
    index = np.array([3, 0, 29_999])
    np.testing.assert_array_equal(found[index], rows[which[index]])
    np.testing.assert_array_equal(found[5:9], rows[which[5:9]])


@pytest.mark.parametrize("selector", [saln.KCenter(), saln.BatchCoherence()])
def test_choosing_by_stored_rows_is_choosing_by_the_same_array(stored, selector):
    rows, store = stored
    which = np.arange(60_000)[::-1].copy()
    labels = np.arange(60_000)[which] % 10
    options = {"batch_size": 8, "filter_ratio": 0.5, "seed": 3, "selector": selector, "ahead": 0}
    asked = []

    class Watched(StoredRows):
        def __getitem__(self, index):
            found = super().__getitem__(index)
            asked.append(len(found))
            return found

    mapped = saln.SelectedBatches(Watched(store, which), labels=labels, **options)
    asked.clear()  # they were all looked at once, some at a time
    chosen = [batch for batch, _ in zip(mapped, range(20), strict=False)]
    assert set(asked) == {16}
    held = saln.SelectedBatches(rows[which], labels=labels, **options)
    assert chosen == [batch for batch, _ in zip(held, range(20), strict=False)]


def test_a_data_set_that_is_too_small_for_a_step_is_refused(tmp_path):
    config = small_run(tmp_path, batch_size=60)
    assert candidates_of_step(config) == 300
    assert candidates_of_step(dataclasses.replace(config, methods="standard")) == 60
    with pytest.raises(InputError, match=r"batch_size=60 at filter_ratio 0.8 needs 300 candidates"):
        load_data(config)


def test_a_run_names_the_backbone_that_was_found_for_it(tmp_path, monkeypatch):
    found = DefaultBackbone("pixels", "it is here")
    monkeypatch.setattr(default_backbone, "default_backbone", lambda on_gpu=None: found)
    config = dataclasses.replace(
        small_run(tmp_path, methods="saln"), backbone="auto", epochs=1, seeds=0
    )
    assert compare(config, Quiet()).summary.backbone == "pixels"
    assert read_settings(config.out).backbone == "pixels"
    again = dataclasses.replace(config, resume=True, seeds=(0, 1))
    assert compare(again, Quiet()).summary.seeds == (0, 1)
