"""Several real processes that train together, as torchrun starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.comparisons import rows_of
from helpers.digits import FLAGS
from helpers.rank_processes import fine_tune, step_example, train_step

from saln.errors import InputError
from saln.training.distributed_layers import SynchronizedBatchNorm, synchronize
from saln.training.processes import ALONE, Processes

SOURCE = Path(__file__).parents[2] / "src"


def assert_alike(several, one, *, examples, rel=3e-3):
    """The same work; the same results but for the order in which floats were added."""
    assert len(several) == len(one) > 0
    for mine, its in zip(several, one, strict=True):
        for name, value in its.items():
            if name == "seconds":
                continue
            if name.endswith("_loss"):
                assert mine[name] == pytest.approx(value, rel=rel), (its["arm"], name)
            elif name.endswith("_accuracy"):
                # A few examples lie on the border between two classes.
                assert abs(mine[name] - value) <= max(0.025, 1.01 / examples[name.split("_")[0]])
            else:
                assert mine[name] == value, (its["arm"], name)


DIGITS = (
    *FLAGS, "--limit", "120", "--epochs", "2", "--reference-epochs", "2", "--batch-size", "8",
    "--learning-rate", "0.005", "--seeds", "0", "--cache-dir", "cache", "--image-size", "8",
)  # fmt: skip


def one_and_two(warm, flags, folder):
    """Runs a comparison in one process and in two; gives what became of each."""
    ended = [
        warm.run(["compare", *flags, "--out", "one"], folder),
        *warm.run_ranks(["compare", *flags, "--out", "two"], folder, 2),
    ]
    for process in ended:
        assert process.returncode == 0, process.stderr
    return ended


def test_two_processes_train_what_one_does(warm, tmp_path):
    methods = "uniform,saln,jest,infobatch"
    flags = (*DIGITS, "--methods", methods, "--filter-ratio", "0.6", "--full-last-epochs", "1")
    _, *both = one_and_two(warm, flags, tmp_path)
    counts = json.loads((tmp_path / "one" / "summary.json").read_text())["examples"]
    assert_alike(rows_of(tmp_path / "two"), rows_of(tmp_path / "one"), examples=counts)
    # One of them writes and speaks.
    assert sum(rank.stdout.count("epochs.jsonl") for rank in both) == 1
    assert sum(rank.stderr.count("uniform, seed 0: epoch 1/2") for rank in both) == 1
    assert (tmp_path / "two" / "report.html").exists()
    environment = json.loads((tmp_path / "two" / "environment.json").read_text())
    assert environment["training_processes"] == 2
    one, two = (
        torch.load(tmp_path / run / "checkpoints" / "saln-seed0.pt", weights_only=True)
        for run in ("one", "two")
    )
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0.02, atol=2e-3)


def test_two_processes_change_training_as_one_does(warm, tmp_path):
    """Averaged weights, targets of a teacher and a robust loss; losses remembered and taught."""
    methods = (
        "uniform+ema(decay=0.5),uniform+targets(features=0.5),coherence+gce(q=0.7),reducible(smoothing=0.5),"
        "balanced-curriculum+targets(beliefs=0.7,features=0.3)+ema(decay=0.5)"
    )
    # In the second epoch reducible chooses by what it was told in the first.
    one_and_two(warm, (*DIGITS, "--methods", methods, "--filter-ratio", "0.6"), tmp_path)
    counts = json.loads((tmp_path / "one" / "summary.json").read_text())["examples"]
    rows = [rows_of(tmp_path / run) for run in ("two", "one")]
    assert len({row["arm"] for row in rows[1]}) == 5
    assert_alike(*rows, examples=counts)


def test_two_processes_choose_by_the_same_trials(warm, tmp_path):
    flags = (*DIGITS, "--methods", "uniform", "--learner", "pixels", "--learning-rate", "1e-5")
    one_and_two(warm, (*flags, "--tune", "3", "--seeds", "0"), tmp_path)
    trials = [
        [json.loads(line) for line in (tmp_path / run / "trials.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    ]
    counts = json.loads((tmp_path / "one" / "summary.json").read_text())["examples"]
    assert_alike(trials[1], trials[0], examples=counts)
    tuned = [
        json.loads((tmp_path / run / "summary.json").read_text())["arms"]["uniform"]["tuned"]
        for run in ("one", "two")
    ]
    assert tuned[0]["learning_rate"] == tuned[1]["learning_rate"]
    assert tuned[0]["trials"] == 3


def test_two_processes_fine_tune_pets_as_one_does(warm, tmp_path, data_root):
    """With BatchNorm, dropout and stochastic depth: EfficientNet-Lite0.

    At a low rate: at the usual one, rounding errors of float32 grow tenfold every few steps,
    with few images a batch and few pixels a map. The test below has no rounding to speak of.
    """
    pytest.importorskip("efficientnet_lite_pytorch")
    flags = (
        "--preset", "offline-oxford-pet", "--data-root", data_root, "--limit", "40",
        "--epochs", "1", "--image-size", "64", "--feature-size", "64", "--batch-size", "8",
        "--methods", "saln,jest", "--seeds", "0", "--reference-epochs", "1",
        "--filter-ratio", "0.5", "--learning-rate", "1e-5", "--cache-dir", "cache",
    )  # fmt: skip
    one_and_two(warm, flags, tmp_path)
    counts = json.loads((tmp_path / "one" / "summary.json").read_text())["examples"]
    assert_alike(rows_of(tmp_path / "two"), rows_of(tmp_path / "one"), examples=counts)


def test_steps_of_efficientnet_lite0_are_those_of_one_process(warm, tmp_path):
    """In float64, at the usual learning rate."""
    pytest.importorskip("efficientnet_lite_pytorch")
    meeting, results = tmp_path / "meeting", tmp_path / "losses"
    warm.call_together(fine_tune, [(rank, 2, meeting, results) for rank in (0, 1)], tmp_path)
    found = torch.load(f"{results}-0", weights_only=True)
    assert torch.equal(found, torch.load(f"{results}-1", weights_only=True))
    fine_tune(0, 1, meeting, results)
    torch.testing.assert_close(found, torch.load(f"{results}-0", weights_only=True))


def test_an_interrupted_run_goes_on_with_two_processes(warm, tmp_path):
    """Started by torchrun itself, which ends the process that is left."""
    flags = (*DIGITS, "--methods", "uniform,jest")
    whole = warm.run_ranks(["compare", *flags, "--out", "whole"], tmp_path, 2)
    assert [rank.returncode for rank in whole] == [0, 0]
    code = (
        "import os, sys\n"
        "from saln.experiments.progress import RunProgress\n"
        "from saln.cli import main\n"
        "save = RunProgress.save_epoch\n"
        "def dies(self, row, state):\n"
        "    save(self, row, state)\n"
        "    if (row.arm, row.epoch) == ('jest', 1):\n"
        "        os._exit(9)\n"  # as a kill: nothing is tidied up
        "RunProgress.save_epoch = dies\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    (tmp_path / "dies.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
         "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1",
         "dies.py", "compare", *flags, "--out", "run"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    # The other process is ended too; nothing hangs.
    assert killed.returncode != 0
    assert [row["epoch"] for row in rows_of(tmp_path / "run")] == [1, 2, 1]
    alone = warm.run(["compare", "--resume", "--out", "run"], tmp_path)
    assert alone.returncode == 2
    assert "the number of processes was 2" in alone.stderr
    for again in warm.run_ranks(["compare", "--resume", "--out", "run"], tmp_path, 2):
        assert again.returncode == 0, again.stderr
    keep = [{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(tmp_path / "run")]
    whole = [
        {k: v for k, v in row.items() if k != "seconds"} for row in rows_of(tmp_path / "whole")
    ]
    assert keep == whole


def test_a_batch_that_cannot_be_shared_is_refused(warm, tmp_path):
    flags = (*DIGITS, "--methods", "uniform", "--batch-size", "9", "--out", "run")
    for found in warm.run_ranks(["compare", *flags], tmp_path, 2):
        assert found.returncode == 2
        assert "--batch-size 9 cannot be shared equally by 2 processes" in found.stderr
    assert not (tmp_path / "run").exists()


def test_a_step_of_two_ranks_is_that_of_the_whole_batch(warm, tmp_path):
    """Outputs, gradients and running statistics, against torch's own layers."""
    calls = [(rank, 2, tmp_path / "meeting", tmp_path / "found") for rank in (0, 1)]
    warm.call_together(train_step, calls, tmp_path)
    found = [torch.load(tmp_path / f"found-{rank}", weights_only=True) for rank in (0, 1)]
    with torch.random.fork_rng():
        network, images, goal = step_example()
        images.requires_grad_()
        torch.manual_seed(5)
        outputs = network(images)
    ((outputs - goal) ** 2).mean().backward()
    close = torch.testing.assert_close
    close(torch.cat([one["outputs"] for one in found]), outputs.detach())
    close(torch.cat([one["input"] for one in found]), images.grad)
    for one in found:
        for mine, its in zip(one["gradients"], network.parameters(), strict=True):
            close(mine, its.grad)
        assert one["state"].keys() == network.state_dict().keys()
        for name, value in network.state_dict().items():
            close(one["state"][name], value)


def test_one_process_is_left_as_it_is():
    network = torch.nn.Sequential(torch.nn.BatchNorm1d(3))
    assert synchronize(network, ALONE) is network
    assert type(network[0]) is torch.nn.BatchNorm1d
    assert ALONE.same("text", torch.device("cpu")) == "text"
    assert not torch.distributed.is_initialized()


def test_batch_norm_in_eval_mode_is_torchs():
    with torch.random.fork_rng():
        plain = torch.nn.BatchNorm2d(3)
        plain(torch.randn(9, 3, 2, 2))
        rows = torch.randn(4, 3, 2, 2)
    network = torch.nn.Sequential(plain).eval()
    expected = plain(rows)
    synchronized = synchronize(network, Processes(0, 2))[0]
    assert isinstance(synchronized, SynchronizedBatchNorm)
    assert torch.equal(synchronized(rows), expected)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, Processes(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Processes(3, 4, 1)),
    ],
)
def test_what_torchrun_says(environment, found):
    assert Processes.from_environment(environment) == found


@pytest.mark.parametrize("environment", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x"}])
def test_what_torchrun_would_not_say(environment):
    with pytest.raises(InputError, match=r"which is not allowed; unset them, or start with"):
        Processes.from_environment(environment)
