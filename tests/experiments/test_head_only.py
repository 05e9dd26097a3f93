"""Training the last layer alone: the results of training it, and nothing else moves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers.comparisons import Quiet, rows_of
from helpers.digits import digits_config
from torch import nn

from saln.data.datasets import load_dataset
from saln.data.transforms import EvaluationTransform
from saln.errors import InputError
from saln.experiments.run import compare
from saln.report.page import write_report
from saln.training.learner_networks import build_head, build_learner


@pytest.fixture
def config(tmp_path):
    return digits_config(
        limit=200, epochs=2, seeds=(0,), batch_size=8, methods=("standard", "jest"),
        reference_epochs=2, label_noise=0.3, cache_dir=tmp_path / "cache", out=tmp_path / "run",
    )  # fmt: skip


def test_where_all_is_in_the_last_layer_it_changes_nothing(config, tmp_path):
    # Pixels have no layers below the head, so both ways train the same weights.
    arms = ("standard", "coherence", "jest")
    config = dataclasses.replace(config, learner="pixels", seeds=(0, 1), methods=arms)
    compare(config, Quiet())
    alone = dataclasses.replace(config, head_only=True, out=tmp_path / "head")
    compare(alone, Quiet())
    whole, head = rows_of(config.out), rows_of(alone.out)
    assert len(whole) == len(head) == 2 * 2 * len(arms)
    for one, other in zip(whole, head, strict=True):
        for name, value in one.items():
            if name.endswith("_loss"):  # batches of evaluation differ, and so the order of sums
                assert other[name] == pytest.approx(value, rel=1e-5), (one["arm"], name)
            elif name != "seconds":
                assert other[name] == value, (one["arm"], name)
    for arm in arms:
        states = [
            torch.load(path / "checkpoints" / f"{arm}-seed1.pt", weights_only=True)
            for path in (config.out, alone.out)
        ]
        assert states[0].keys() == states[1].keys()
        for name, value in states[0].items():
            torch.testing.assert_close(states[1][name], value)


def test_the_checkpoint_is_the_whole_network_and_only_its_head_has_moved(config):
    config = dataclasses.replace(config, head_only=True)
    compare(config, Quiet())
    assert "small-cnn (last layer trained)," in write_report(config.out).read_text()
    data = load_dataset("digits", limit=200, reference_share=0.1)
    learner, normalization = build_learner("small-cnn", 10, image_size=16, pretrained=True, seed=0)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    transform = EvaluationTransform(16, normalization)
    images = torch.stack([transform(data.test[i][0]) for i in range(len(data.test))])
    rows = rows_of(config.out)
    for arm in ("standard", "jest"):
        state = torch.load(config.out / "checkpoints" / f"{arm}-seed0.pt", weights_only=True)
        moved = {name for name in before if not torch.equal(before[name], state[name])}
        assert moved == {"1.weight", "1.bias"}
        learner.load_state_dict(state)
        learner.eval()
        with torch.inference_mode():
            right = learner(images).argmax(dim=1).numpy() == data.test.labels
        (last,) = (row for row in rows if row["arm"] == arm and row["epoch"] == 2)
        assert last["test_accuracy"] == pytest.approx(float(np.mean(right)))


def test_it_goes_on_where_it_was_ended(config, tmp_path):
    config = dataclasses.replace(config, head_only=True, methods=("uniform", "jest"))
    compare(config, Quiet())

    class Ended(Quiet):
        def epoch(self, row, epochs):
            if (row.arm, row.epoch) == ("jest", 1):
                raise KeyboardInterrupt

    other = dataclasses.replace(config, out=tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        compare(other, Ended())
    compare(dataclasses.replace(other, resume=True), Quiet())
    for one, again in zip(rows_of(config.out), rows_of(other.out), strict=True):
        assert {**one, "seconds": 0} == {**again, "seconds": 0}


def test_head_and_body_are_the_learner():
    options = {"image_size": 32, "pretrained": False, "seed": 3}
    learner, _ = build_learner("resnet18", 5, **options)
    head, body = build_head("resnet18", 5, **options)
    learner.eval()
    images = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(head(body(images)), learner(images))
    assert not body(images).requires_grad
    assert isinstance(head, nn.Linear)
    torch.testing.assert_close(body.with_head(head).state_dict(), learner.state_dict())


def test_a_head_before_the_pooling_is_refused():
    with pytest.raises(InputError, match="leave head_only out"):
        build_head("squeezenet1_0", 5, image_size=64, pretrained=False)
