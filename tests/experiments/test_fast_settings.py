"""Settings that are there for speed: they change what is computed by rounding alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.stopped_runs import Quiet, rows_of, small_run
from torch import nn

from saln.data.torch_datasets import Batch
from saln.experiments.run import compare
from saln.randomness import seeded_globally
from saln.training.loop import evaluate

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
    compare(small_run(folder, **(settings | changes), out=folder / "run"), Quiet())
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
