"""The examples do what they say, each in a process of its own; one as a reader starts it.

That of Ray is in tests/curation/test_on_ray.py.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
HELPERS = Path(__file__).parents[1] / "helpers"
NAMES = (
    "accelerate_training", "lightning_training", "transformers_training",
    "transformers_text", "stateful_dataloader", "stream_training",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(warm, tmp_path_factory):
    """Gives what an example says. All are run at the first question."""
    folder = tmp_path_factory.mktemp("examples")
    scripts = [EXAMPLES / f"{name}.py" for name in NAMES]
    done = warm.run(scripts, folder, script=HELPERS / "forked_examples.py")
    assert done.returncode == 0, done.stderr
    statuses = json.loads((folder / "statuses.json").read_text())

    def said(name):
        assert statuses[name] == 0, (folder / f"{name}.err").read_text()
        return (folder / f"{name}.out").read_text()

    return said


def assert_learned(said):
    loss = re.search(r"last loss ([\d.]+)", said)
    assert loss is not None
    assert 0 < float(loss[1]) < 1.5  # ln 10 = 2.3 before training


def test_the_loop_of_ones_own_learns_in_an_interpreter_of_its_own():
    command = [sys.executable, str(EXAMPLES / "plain_pytorch.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_learned(done.stdout)


@pytest.mark.parametrize(
    "name", ["accelerate_training", "lightning_training", "transformers_training"]
)
def test_an_example_learns(run, name):
    assert_learned(run(name))


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
