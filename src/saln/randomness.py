"""Every random choice in SALN comes from a generator that is made here.

A generator is derived from what it is for (seed, epoch, step, ...), so that a
choice never depends on what was drawn before it, on the number of workers or on
the other arms of a comparison. torch's global generator is left as it was found.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def derive_seed(*keys: int | str) -> int:
    """A seed in [0, 2**63) that depends on every key, on their types and on their order.

    The same number in every process, on every platform and Python version. The keys say what
    the random choice is for, e.g. ``(seed, "order", epoch)``.
    """
    # With types and a separator: (1, "2") and ("12",) are other keys.
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def derive_generator(*keys: int | str) -> torch.Generator:
    """A CPU generator seeded by :func:`derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*keys))


@contextlib.contextmanager
def seeded_globally(*keys: int | str) -> Iterator[None]:
    """Seeds torch's global generators inside the block and puts them back after it.

    For code that only knows the global generator: weight initialization in
    ``torch.nn``, dropout and stochastic depth.
    """
    devices = list(range(torch.cuda.device_count()))
    # Put back after the block, also when it fails: nobody else's draws change.
    with torch.random.fork_rng(devices=devices):
        seed = derive_seed(*keys)
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield
