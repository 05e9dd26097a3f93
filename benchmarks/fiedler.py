"""How much faster is ``fiedler`` than the paper's listing, and is the set the same?

    python benchmarks/fiedler.py --data-root ../data            a table
    python benchmarks/fiedler.py --data-root ../data --json     one JSON object a line

The listing (paper, section 3.6, algorithm 1) is scikit-learn's cosine_similarity
and NumPy's eigh, in float64, which is what its set is defined by here; the same in
float32 is timed beside it. Both get features that are in memory as float32, and
both times hold everything from there to the chosen positions. Times are the best
of several runs, the two sides in turns.

Without ``--data-root`` the features are random, low-rank and non-negative. The last
row compares choosing 64 of 320 with loading those 64 and training on them.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from real_features import DATASETS, FEATURE_WIDTH, default_cache, real_features
from scipy.sparse.linalg import LinearOperator, eigsh, lobpcg
from sklearn.metrics.pairwise import cosine_similarity

from saln.spectral import FiedlerResult, fiedler
from saln.training import seeded_globally

SIZES = (64, 320, 640, 1280, 2560, 5120, 10240, 32768)
LISTING_LIMIT = 5120
PEER_LIMIT = 2560
FILTER_RATIO = 0.8
# The thread pools of torch and of NumPy's BLAS go on spinning for some 20 ms after their last
# use and take the cores from one another: the other side's is let fall asleep first.
POOLS_ASLEEP_SECONDS = 0.1

Array = NDArray[Any]


def listing(features: Array, k: int) -> Array:
    """The paper's listing, in the dtype of its input."""
    similarity = cosine_similarity(features)
    laplacian = np.diag(similarity.sum(axis=1)) - similarity
    _, vectors = np.linalg.eigh(laplacian)
    return np.argsort(np.abs(vectors[:, 1]))[-k:]


def fiedler_choice(features: torch.Tensor, k: int) -> tuple[Array, FiedlerResult]:
    """The positions that ``fiedler`` chooses, on the processor, and its result."""
    result = fiedler(features)
    return result.ranking()[:k].cpu().numpy(), result


# Peers: the same eigenpair by other solvers, each as its documentation suggests.


def _operator(features: Array) -> tuple[Array, Array]:
    rows = features.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(norms > 0, norms, 1.0)
    return rows, rows @ rows.sum(0)


def scipy_eigsh(features: Array, k: int) -> Array:
    """ARPACK's Lanczos on the operator, smallest algebraic."""
    rows, degrees = _operator(features)
    n = len(rows)
    product = LinearOperator(
        (n, n), matvec=lambda v: degrees * v.ravel() - rows @ (rows.T @ v.ravel()), dtype=np.float64
    )
    start = np.random.default_rng(0).standard_normal(n)
    _, vectors = eigsh(product, k=2, which="SA", v0=start, tol=1e-13)
    return np.argsort(np.abs(vectors[:, 1]))[-k:]


def scipy_lobpcg(features: Array, k: int) -> Array:
    """SciPy's LOBPCG on the operator, the constant vector a constraint, diagonal preconditioner."""
    rows, degrees = _operator(features)
    n = len(rows)
    inverse = 1.0 / np.maximum(degrees - degrees.min() * (1 - 1e-2), 1e-9)[:, None]
    start = np.random.default_rng(0).standard_normal((n, 3))
    _, vectors = lobpcg(
        lambda v: degrees[:, None] * v - rows @ (rows.T @ v),
        start,
        M=lambda v: inverse * v,
        Y=np.ones((n, 1)),
        tol=1e-11,
        maxiter=500,
        largest=False,
    )
    return np.argsort(np.abs(vectors[:, 0]))[-k:]


def torch_lobpcg(features: Array, k: int) -> Array:
    """torch.lobpcg, which wants the matrix: dense Laplacian, diagonal preconditioner."""
    rows, degrees = (torch.from_numpy(part) for part in _operator(features))
    matrix = torch.diag(degrees) - rows @ rows.mT
    inverse = torch.diag(1.0 / (degrees - degrees.min() * (1 - 1e-2)).clamp_min(1e-9))
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(len(rows), 3, generator=generator, dtype=torch.float64)
    start[:, 0] = 1.0
    _, vectors = torch.lobpcg(matrix, X=start, iK=inverse, niter=500, tol=1e-13, largest=False)
    return np.argsort(np.abs(vectors[:, 1].numpy()))[-k:]


PEERS: dict[str, Callable[[Array, int], Array]] = {
    "scipy_eigsh": scipy_eigsh,
    "scipy_lobpcg": scipy_lobpcg,
    "torch_lobpcg": torch_lobpcg,
}


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall-clock seconds of one run, and what it gave."""
    start = time.perf_counter()
    out = work()
    return time.perf_counter() - start, out


def extra_memory(work: Callable[[], Any], device: torch.device) -> int | None:
    """Peak bytes above what was held before, of the process or of the CUDA device."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return int(torch.cuda.max_memory_allocated(device)) - before
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")
    except OSError:
        return None
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # pages kept from an earlier run would hide what this one takes
    held = _kilobytes(status, "VmRSS")
    reset.write_text("5")  # the peak starts again from what is held now
    work()
    return 1024 * max(0, _kilobytes(status, "VmHWM") - held)


def _kilobytes(status: Path, field: str) -> int:
    lines = [line for line in status.read_text().splitlines() if line.startswith(field)]
    return int(lines[0].split()[1])


def measure(features: Array, device: torch.device, *, peers: bool) -> dict[str, Any]:
    """One row: the listing, ``fiedler`` and the peers on the same float32 features."""
    n, d = features.shape
    k = max(1, round(n * (1 - FILTER_RATIO)))
    tensor = torch.from_numpy(features).to(device)
    fiedler_choice(tensor, k)  # warm: threads, library handles
    peak = extra_memory(lambda: fiedler_choice(tensor, k), device)
    # In turns of several runs a side: how many turns, and how many runs in a turn.
    turns = 5 if n < 2560 else 1
    runs_listing = 0 if n > LISTING_LIMIT else 3 if n < 2560 else 1
    runs_saln = 5 if n <= LISTING_LIMIT else 3
    listing_seconds = single_seconds = float("inf")
    saln_seconds = float("inf")
    expected = single = None
    result: FiedlerResult | None = None
    chosen: Array = np.empty(0)
    for _ in range(turns):
        time.sleep(POOLS_ASLEEP_SECONDS)
        for _ in range(runs_saln):
            took, (chosen, result) = seconds_of(lambda: fiedler_choice(tensor, k))
            saln_seconds = min(saln_seconds, took)
        time.sleep(POOLS_ASLEEP_SECONDS)
        for _ in range(runs_listing):
            took, expected = seconds_of(lambda: listing(features.astype(np.float64), k))
            listing_seconds = min(listing_seconds, took)
    if runs_listing and n <= PEER_LIMIT:
        single_seconds, single = seconds_of(lambda: listing(features, k))
    assert result is not None
    row: dict[str, Any] = {
        "n": n,
        "d": d,
        "device": device.type,
        "listing_seconds": listing_seconds if runs_listing else None,
        "saln_seconds": saln_seconds,
        "ratio": listing_seconds / saln_seconds if runs_listing else None,
        "same_set": _same(chosen, expected),
        "iterations": result.iterations,
        "peak_bytes": peak,
        "solver": result.solver,
        "fallback": result.fallback,
        "residual": result.residual,
        "gap": result.gap,
        "accuracy": result.accuracy,
        "participation_ratio": result.participation_ratio,
        "determined": result.determined(k),
        "listing_float32_seconds": single_seconds if single is not None else None,
        "listing_float32_same_set": _same(single, expected),
        "listing_skipped": None
        if runs_listing
        else f"{3 * 8 * n * n / 2**30:.0f} GiB of n x n matrices, hours of n^3 work",
    }
    if peers and n <= PEER_LIMIT:
        row["peers"] = {}
        for name, solve in PEERS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they warn where they did not converge
                try:
                    took, found = seconds_of(partial(solve, features, k))
                except Exception as error:
                    row["peers"][name] = {"seconds": None, "error": type(error).__name__}
                    continue
            row["peers"][name] = {"seconds": took, "same_set": _same(found, expected)}
    return row


def _same(found: Array | None, expected: Array | None) -> bool | None:
    if found is None or expected is None:
        return None
    return set(found.tolist()) == set(expected.tolist())


def selection_share(features: Array, data_root: Path, seed: int) -> dict[str, Any]:
    """Choosing 64 of 320, against decoding and training ResNet-18 on the 64 at 64 px."""
    from saln._torchvision import torchvision
    from saln.data.decoding import load_rgb

    models, transforms = torchvision.models, torchvision.transforms
    paths = sorted((data_root / "oxford-iiit-pet" / "images").glob("*.jpg"))
    prepare = transforms.Compose(
        [transforms.RandomResizedCrop(64), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    )
    with seeded_globally(seed):
        learner = models.resnet18(num_classes=37)
        optimizer = torch.optim.SGD(learner.parameters(), lr=0.01)
        labels = torch.arange(64) % 37
        tensor = torch.from_numpy(features[:320])
        best = {"select": float("inf"), "load": float("inf"), "train": float("inf")}

        def load() -> torch.Tensor:
            return torch.stack([prepare(load_rgb(path)) for path in paths[:64]])

        def train(images: torch.Tensor) -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(learner(images), labels).backward()
            optimizer.step()

        for _ in range(5):
            took, _ = seconds_of(lambda: fiedler_choice(tensor, 64))
            best["select"] = min(best["select"], took)
            took, images = seconds_of(load)
            best["load"] = min(best["load"], took)
            took, _ = seconds_of(partial(train, images))
            best["train"] = min(best["train"], took)
    return {
        "question": "what share of loading and training on 64 is choosing them from 320?",
        "select_seconds": best["select"],
        "load_seconds": best["load"],
        "train_seconds": best["train"],
        "share": best["select"] / (best["load"] + best["train"]),
    }


def random_features(n: int, seed: int) -> Array:
    """Non-negative float32 features of low rank plus noise, with some examples far out."""
    generator = np.random.default_rng(seed)
    base = generator.random((n, 40)) @ generator.random((40, FEATURE_WIDTH)) / 10
    away = generator.random((n, 1)) ** 4
    noise = generator.exponential(size=(n, FEATURE_WIDTH))
    return np.asarray(base + 3 * away * noise, dtype=np.float32)


def _cell(value: float | None, width: int, digits: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}.{digits}f}"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for a reader."""
    lines = [
        f"{'n':>6} {'listing s':>10} {'saln s':>9} {'ratio':>7} {'same':>5} {'products':>8} "
        f"{'peak MiB':>8} {'exam.':>6}  solver and peers (seconds, same set)"
    ]
    for row in rows:
        if "question" in row:
            lines.append(f"{row['question']} {100 * row['share']:.1f}%")
            continue
        peers = "".join(
            f"  {name} {peer['seconds']:.3f} {'yes' if peer['same_set'] else 'no'}"
            for name, peer in row.get("peers", {}).items()
            if peer["seconds"] is not None
        )
        same = {True: "yes", False: "NO", None: "-"}[row["same_set"]]
        peak = None if row["peak_bytes"] is None else row["peak_bytes"] / 2**20
        lines.append(
            f"{row['n']:>6} {_cell(row['listing_seconds'], 10, 4)} {row['saln_seconds']:>9.4f} "
            f"{_cell(row['ratio'], 7, 1)} {same:>5} {row['iterations']:>8} {_cell(peak, 8, 0)} "
            f"{row['participation_ratio']:>6.2f}  {row['solver']}{peers}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, help="folder with cifar10/ and oxford-iiit-pet/")
    parser.add_argument("--dataset", choices=DATASETS, default="cifar10")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="comma-separated n")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-peers", action="store_true", help="leave the other solvers out")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    sizes = [int(size) for size in args.sizes.split(",")]
    if args.data_root is None:
        features = random_features(max(sizes), args.seed)
    else:
        features = real_features(args.data_root, args.dataset, max(sizes), args.cache)
        order = np.random.default_rng(args.seed).permutation(len(features))
        features = features if args.seed == 0 else features[order]
    rows = []

    def report(row: dict[str, Any]) -> None:
        rows.append(row)
        if args.json:
            print(json.dumps(row), flush=True)

    for n in sizes:
        part = np.ascontiguousarray(features[:n], dtype=np.float32)
        report(measure(part, torch.device(args.device), peers=not args.no_peers))
    if args.data_root is not None:
        part = np.ascontiguousarray(features[:320], dtype=np.float32)
        report(selection_share(part, args.data_root, args.seed))
    if not args.json:
        sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    main()
