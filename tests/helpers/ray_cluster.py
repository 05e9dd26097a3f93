"""One Ray cluster of two nodes, of one core each, for all tests that need one."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

from saln.integrations.ray import connected

_left = contextlib.ExitStack()
_addresses: list[str] = []


def address() -> str:
    """Where it is; it is started when it is first asked for, which takes ten seconds.

    As a command starts one that is given no address; the second node is Ray's own addition.
    """
    if not _addresses:
        ray = _left.enter_context(connected(None, 1))
        from ray.cluster_utils import Cluster

        _addresses.append(ray.get_runtime_context().gcs_address)
        cluster = Cluster()
        cluster.head_node = SimpleNamespace(gcs_address=_addresses[0])
        node = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        _left.callback(cluster.remove_node, node)
    return _addresses[0]


def stop() -> None:
    """Ends its processes, which cost even where nobody asks them anything."""
    _addresses.clear()
    _left.close()
