"""Chooses offline on a Ray cluster, here of two nodes on this machine.

Needs the extra ``ray``: ``pip install 'saln[ray]'``. To use an existing cluster, leave
``Cluster`` out and pass its address.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from ray.cluster_utils import Cluster

import saln


def main() -> None:
    """Keeps a fifth of 20,000 rows, on the cluster and without, and compares the two."""
    folder = Path(tempfile.mkdtemp())
    random = np.random.default_rng(0)
    labels = np.arange(20_000) % 10
    features = random.random((20_000, 32)) + 2 * np.eye(32)[labels]
    labels[:4_000] = random.integers(0, 10, 4_000)  # most of these are wrong
    saln.write_store(folder / "store", features.astype(np.float16), labels)

    node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    shared: dict[str, Any] = {
        "selector": saln.BatchCoherence(),
        "candidates": 320,
        "filter_ratio": 0.8,
    }
    result = saln.select(
        folder / "store",
        out=folder / "ray.parquet",
        engine="ray",
        ray_address=cluster.address,
        partition_rows=2_000,
        **shared,
    )
    cluster.shutdown()
    saln.select(folder / "store", out=folder / "local.parquet", partition_rows=2_000, **shared)

    same = (folder / "ray.parquet").read_bytes() == (folder / "local.parquet").read_bytes()
    kept = pq.read_table(result.path)["id"].to_numpy()
    which = "the same" if same else "other ones"
    print(f"kept {result.kept} of {result.rows} rows, {which} locally")
    print(f"{np.mean(kept < 4_000):.0%} of the kept are among the fifth with the wrong labels")


if __name__ == "__main__":
    main()
