"""Settings that are there for speed: they change what is computed by rounding alone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.stopped_runs import Quiet, again, rows_of, small_run, stopped
from torch import nn

from saln.cli import main
from saln.data.torch_datasets import Batch
from saln.errors import InputError
from saln.experiments.run import compare
from saln.randomness import seeded_globally
from saln.training import learner_networks
from saln.training.learner_networks import check_compiler
from saln.training.loop import evaluate

CNN = {"learner": "small-cnn"}
Seen = list[tuple[bool, torch.dtype]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Of every pass of a convolution: whether channels are last, and the output's type."""
    passes: Seen = []
    forward = nn.Conv2d.forward

    def spy(self: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        outputs = forward(self, images)
        last = outputs.is_contiguous(memory_format=torch.channels_last)
        passes.append((last, outputs.dtype))
        return outputs

    monkeypatch.setattr(nn.Conv2d, "forward", spy)
    return passes


def run(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    settings = {"methods": ("uniform", "jest"), "seeds": (0,), "epochs": 2, "limit": 100}
    config = small_run(folder, **(settings | CNN | changes), out=folder / "run")
    compare(config, Quiet())
    return rows_of(folder / "run")


def test_bf16_and_channels_last_train_score_and_evaluate_nearly_the_same(
    tmp_path: Path, seen: Seen
):
    plain = run(tmp_path / "plain")
    assert {kind for _, kind in seen} == {torch.float32}
    seen.clear()
    fast = run(tmp_path / "fast", precision="bf16", channels_last=True)
    assert all(last for last, _ in seen)
    kinds = [kind for _, kind in seen]
    # In full precision are the reference model's answers alone.
    assert kinds.count(torch.bfloat16) > 0.8 * len(kinds)
    for one, other in zip(plain, fast, strict=True):
        assert other["steps"] == one["steps"]
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=0.05)
    assert fast != plain  # rounding at the least


def test_losses_are_taken_in_full_precision():
    """Of logits that bf16 rounds, the mean loss is that of float32, not rounded again."""
    with seeded_globally(0):
        layer = nn.Linear(4, 3).requires_grad_(requires_grad=False)
        images, labels = torch.randn(32, 4), torch.randint(3, (32,))
    batch = Batch(images, labels, torch.arange(32))
    found = evaluate(layer, [batch], torch.device("cpu"), autocast=torch.bfloat16)
    logits = nn.functional.linear(
        images.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16()
    ).double()
    assert found.loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """What torch.compile is given, and runs as it stands."""
    taken: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        taken.append(graph)
        return graph.forward

    monkeypatch.setattr(learner_networks, "BACKEND", keep)
    torch._dynamo.reset()
    return taken


def convolutions(graph: torch.fx.GraphModule) -> int:
    return sum("conv2d" in str(node.target) for node in graph.graph.nodes)


COMPILED = {"methods": ("uniform", "jest", "uniform+ema(decay=0.5)"), "epochs": 2}


def test_compiled_runs_train_score_evaluate_and_go_on_as_others_do(
    tmp_path: Path, graphs: list[torch.fx.GraphModule]
):
    plain = run(tmp_path / "plain", **COMPILED)
    assert not graphs
    assert run(tmp_path / "compiled", **COMPILED, compile=True) == plain
    whole = [graph for graph in graphs if convolutions(graph)]
    # The network at one piece; each of training, scoring and measuring for few sizes of a batch.
    assert {convolutions(graph) for graph in whole} == {3}
    assert len(whole) <= 6
    for name in ("uniform", "uniform+ema(decay=0.5)"):
        states = [
            torch.load(tmp_path / each / "run" / "checkpoints" / f"{name}-seed0.pt")
            for each in ("plain", "compiled")
        ]
        assert list(states[0]) == list(states[1])
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    config = small_run(tmp_path / "stopped", seeds=(0,), limit=100, compile=True, **CNN, **COMPILED)
    stopped(config, 3)
    compare(again(config), Quiet())
    assert rows_of(tmp_path / "stopped" / "run") == plain


# What torch's compiler loads of torch is out of date.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiling_by_the_real_compiler(tmp_path: Path):
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("needs a C++ compiler, such as g++")
    torch._dynamo.reset()
    with seeded_globally(0):
        network = nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Linear(8, 3))
    expected = network(torch.ones(5, 4))
    compiled = learner_networks.compile_learner(network)
    check_compiler(torch.device("cpu"))
    torch.testing.assert_close(compiled(torch.ones(5, 4)), expected)
    assert next(iter(compiled.state_dict())) == "0.0.weight"


def test_what_cannot_be_compiled_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def fails(graph: Any, inputs: Any) -> None:
        raise RuntimeError("no working C++ compiler found")

    monkeypatch.setattr(learner_networks, "BACKEND", fails)
    torch._dynamo.reset()
    flags = ["compare", "--preset", "digits", "--compile", "--out", str(tmp_path / "run")]
    assert main(flags) == 2
    said = capfd.readouterr().err
    assert "--compile: torch.compile does not work here" in said
    assert "install a C++ compiler, such as g++, or leave --compile out" in said
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="is for a whole network, and head_only trains one layer"):
        small_run(tmp_path, compile=True, head_only=True).check()
