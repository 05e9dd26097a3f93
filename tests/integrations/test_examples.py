"""The examples do what they say, each in a process of its own, as a reader runs them.

That of Ray is in tests/curation/test_on_ray.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(warm, tmp_path):
    def call(name):
        done = warm.run([], tmp_path, script=EXAMPLES / f"{name}.py")
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.mark.parametrize(
    "name",
    ["plain_pytorch", "accelerate_training", "lightning_training", "transformers_training"],
)
def test_an_example_learns(run, name):
    loss = re.search(r"last loss ([\d.]+)", run(name))
    assert loss is not None
    assert 0 < float(loss[1]) < 1.5  # ln 10 = 2.3 before training


def test_of_texts_the_right_labels_are_chosen(run):
    shares = re.findall(
        r"(\w+): ([\d.]+)% of the labels wrong.* ([\d.]+)%", run("transformers_text")
    )
    (_, kept, better), (_, given, worse) = shares
    assert float(kept) < 5
    assert 35 < float(given) < 45
    assert float(better) >= float(worse) > 50


def test_the_stateful_loader_goes_on_where_it_stopped(run):
    assert "5 batches, a stop, and the" in run("stateful_dataloader")


def test_the_stream_decodes_what_it_keeps(run):
    printed = run("stream_training")
    loss, decoded, trained = re.search(
        r"last loss ([\d.]+), (\d+) images decoded for (\d+) trained", printed
    ).groups()
    assert float(loss) < 1.5
    assert int(decoded) == int(trained) > 0
