"""How positions are drawn from scores: the highest, or at random in proportion."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def around_one(features: Tensor) -> tuple[Tensor, int]:
    """Rows in float32 or wider, times the power of two that makes the largest entry about 1.

    Changes no digit of the finite features, (n, d), whose squares are then numbers, and not 0 or
    infinite. The power is 0 where all are 0.
    """
    wide = features.to(torch.promote_types(torch.float32, features.dtype))
    power = -math.frexp(float(wide.abs().max()))[1] if wide.numel() else 0
    return times_power(wide, power), power


def times_power(values: Tensor, power: int) -> Tensor:
    """Values times ``2 ** power``."""
    half = power // 2  # the power of the smallest numbers is itself beyond what floats hold
    return values * 2.0**half * 2.0 ** (power - half)


def top_k(scores: Tensor, k: int) -> Tensor:
    """The positions of the ``k`` highest of finite scores, (n,): int64, (k,), on the CPU.

    The highest is first; equal ones go to the lower position.
    """
    # Not topk, which leaves the order of equal scores to the device.
    return torch.argsort(scores, descending=True, stable=True)[:k].cpu()


def gumbel_top_k(logits: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draws ``k`` positions without replacement, in proportion to ``exp(logits)``.

    The ``k`` largest of logits plus Gumbel noise (arXiv 1903.06059), which never forms
    ``exp(logits)``. Logits are floating, (n,); at least ``k`` of them are above ``-inf``, and
    others are never drawn. Gives int64, (k,), in the order of the draw.
    """
    return torch.topk(gumbel_keys(logits, generator), k).indices


def gumbel_keys(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Logits plus Gumbel noise: float64, (n,), on the CPU. Whose highest are kept is a draw."""
    # On the CPU and in float64: the same draw on every device and rank.
    uniform = torch.rand(len(logits), generator=generator, dtype=torch.float64)
    # 0 would give infinite noise; the smallest positive double stands for it.
    noise = -torch.log(-torch.log(uniform.clamp_min(torch.finfo(torch.float64).tiny)))
    return logits.double().cpu() + noise
