"""One Ray cluster of two nodes, of one core each, for all tests that need one."""

from __future__ import annotations

import contextlib
from typing import Any

_nodes: list[Any] = []
# What watches a cluster, and no test looks at.
UNUSED = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}


def address() -> str:
    """Where it is; it is started when it is first asked for, which takes ten seconds."""
    from ray.cluster_utils import Cluster

    if not _nodes:
        node = {"num_cpus": 1, "object_store_memory": 100 * 2**20} | UNUSED
        _nodes.append(Cluster(initialize_head=True, head_node_args=node))
        _nodes[0].add_node(num_cpus=1, object_store_memory=100 * 2**20)
    found: str = _nodes[0].address
    return found


def stop() -> None:
    """Ends its processes, which cost even where nobody asks them anything."""
    if _nodes:
        _nodes.pop().shutdown()
