"""Features computed by the actors of a Ray cluster, the same bytes as without.

Each actor opens the data set itself, on its own machine, and computes whole shards; their
rows come back to the driver, which alone writes the store. So no file system need be shared.
Ray places the actors. The shards of an actor that died are computed again by another, and a
driver that was killed goes on where it stopped, as a local extraction does.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from saln._extras import optional_import
from saln.data.datasets import load_dataset
from saln.data.fingerprint import fingerprint
from saln.data.items import MapStyle
from saln.data.torch_datasets import inference_batch_size
from saln.errors import DataError, InputError, SalnError
from saln.features.backbones import Network
from saln.features.extraction import Meter, Plan, Progress, plan_extraction
from saln.features.extraction_job import ExtractionJob, joined, ready
from saln.features.extraction_options import ExtractionOptions
from saln.features.manifest import Skipped
from saln.features.store import FeatureStore
from saln.features.store_writer import StoreWriter, claimed_shards
from saln.messages import first_line, not_allowed, parameter

# A shard whose actors keep dying is what kills them: an image too large for memory, say.
_DEATHS = 3
# Shards an actor holds at once, so that it does not wait while the driver writes.
_IN_FLIGHT = 2
_CONNECT_SECONDS = 5.0
# What a client of HTTP/2, and so of gRPC, says first, and the kind of frame it is answered with.
_SETTINGS = b"\x04"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
_OBJECT_STORE = 200 * 2**20  # bytes; only rows and one network travel


@dataclass(frozen=True)
class TrainingPart:
    """Opens a data set's training part, named as ``load_dataset`` takes it, on any machine."""

    spec: str
    data_root: Path
    limit: int | None
    split_seed: int

    @classmethod
    def of(cls, spec: str, data_root: Path, limit: int | None, split_seed: int) -> TrainingPart:
        """With paths made absolute: an actor works in another folder."""
        kind, _, rest = spec.partition(":")
        path = Path(rest).expanduser()
        if rest and path.exists():
            spec = f"{kind}:{path.absolute()}"
        return cls(spec, data_root.expanduser().absolute(), limit, split_seed)

    def __call__(self) -> MapStyle:
        """The examples."""
        data = load_dataset(self.spec, self.data_root, limit=self.limit, split_seed=self.split_seed)
        return data.train


def _check_reachable(address: str) -> None:
    """Ray itself would try for most of a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    if not host or not port.isdecimal():
        raise InputError(
            f"the Ray address {address!r} is not allowed; give HOST:PORT, ray://HOST:PORT or auto"
        )
    try:
        with socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS) as found:
            if not os.environ.get("RAY_USE_TLS"):  # else a handshake comes first
                found.sendall(_GREETING)
                if found.recv(4)[3:] != _SETTINGS:
                    raise ConnectionError("what listens there is not Ray")
    except (OSError, OverflowError) as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({error}); start one with 'ray start --head', "
            "check the address, or leave it out for a cluster of this machine alone"
        ) from error


@contextlib.contextmanager
def _kept_handler() -> Iterator[None]:
    """Gives SIGTERM back to whoever handled it before the block, where a library takes it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        own = threading.current_thread() is threading.main_thread()
        if own and callable(before):
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[Any]:
    """Gives the module ``ray``, connected; a connection that was there stays.

    Without an address a cluster of ``workers`` cores (all when None) is started for the block.
    """
    # Its default will change, and until then it warns.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with optional_import("ray", "engine 'ray'"):
        ray = importlib.import_module("ray")
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    if address is None:
        # "local", or RAY_ADDRESS in the environment would decide.
        options |= {"address": "local", "num_cpus": workers, "include_dashboard": False}
        options |= {"object_store_memory": _OBJECT_STORE}
    else:
        _check_reachable(address)
        options |= {"address": address}
    try:
        with _kept_handler():
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray cluster can be used at {address or 'this machine'} "
            f"({first_line(error)}); check the "
            "address, and that Ray and Python have the same versions there"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


Shard = tuple[npt.NDArray[np.float16], npt.NDArray[np.int64], tuple[Skipped, ...], float]


class _Extractor:
    """What an actor is; also without Ray."""

    def __init__(
        self, job: ExtractionJob, load: Callable[[], MapStyle] | None, wanted: str
    ) -> None:
        self.job = job
        self.load = load
        self.wanted = wanted
        if job.device.type == "cpu":
            torch.set_num_threads(1)  # an actor a core

    def compute(self, shard: range) -> Shard | SalnError:
        """Features and labels of some rows, and the seconds they took; or why there are none."""
        try:
            if self.load is not None:
                self._open(self.load)
            return self._compute(shard)
        except SalnError as error:
            return error

    def _open(self, load: Callable[[], MapStyle]) -> None:
        dataset = load()
        found = fingerprint(dataset)
        if found != self.wanted:
            raise DataError(
                f"the data set on {socket.gethostname()} is another than the driver's (names, "
                "sizes, order or labels of its examples differ); put the same files at the same "
                "path on every machine"
            )
        self.job = replace(self.job, dataset=dataset)
        self.load = None  # once

    def _compute(self, shard: range) -> Shard:
        job, started = self.job, time.perf_counter()
        if job.device.type == "cuda" and job.precision is not None:
            brain = torch.cuda.is_bf16_supported()
            job = replace(job, precision=torch.bfloat16 if brain else torch.float16)
        with ready(job.network.body, job.device):
            parts = list(job.batches([shard]))
        return *joined(parts), time.perf_counter() - started


class _Pool:
    """Actors that compute shards, replaced when they die."""

    def __init__(self, ray: Any, make: Callable[[], Any], actors: int) -> None:
        self.ray = ray
        self.make = make
        self.actors = [make() for _ in range(actors)]
        self.deaths: Counter[int] = Counter()

    def compute(self, numbers: list[int], plan: Plan) -> Iterator[tuple[int, Shard]]:
        """Gives every shard as it is done."""
        waiting = deque(numbers)
        running: dict[Any, tuple[int, int]] = {}  # a reference -> (actor, shard)
        while waiting or running:
            busy = Counter(place for place, _ in running.values())
            # In rounds: one shard for each actor before any gets a second.
            for _ in range(_IN_FLIGHT):
                for place, actor in enumerate(self.actors):
                    if waiting and busy[place] < _IN_FLIGHT:
                        number = waiting.popleft()
                        reference = actor.compute.remote(plan.manifest.shard(number))
                        running[reference] = place, number
                        busy[place] += 1
            done, _ = self.ray.wait(list(running), num_returns=1)
            place, number = running[done[0]]
            try:
                result = self.ray.get(done[0])
            except self.ray.exceptions.RayActorError as error:
                # In the order in which it was given them: it died of the first.
                lost = [shard for where, shard in running.values() if where == place]
                running = {key: value for key, value in running.items() if value[0] != place}
                self._replace(place, lost[0], error)
                # First in line again, in their order: the driver may be waiting to count them.
                waiting.extendleft(reversed(lost))
                continue
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from error
            del running[done[0]]
            if isinstance(result, SalnError):
                raise result
            yield number, result

    def _replace(self, place: int, number: int, error: Exception) -> None:
        self.deaths[number] += 1
        if self.deaths[number] >= _DEATHS:
            raise DataError(
                f"{_DEATHS} actors died while computing shard {number} "
                f"({first_line(error)}); give them more memory, or lower batch_size; "
                "finished shards are kept"
            ) from error
        self.actors[place] = self.make()

    def close(self) -> None:
        """Ends the actors."""
        for actor in self.actors:
            self.ray.kill(actor)


def extract_features_on_ray(  # noqa: D417 (the others are described there)
    dataset: MapStyle,
    backbone: str | Network | nn.Module = "resnet50",
    *,
    load: Callable[[], MapStyle] | None = None,
    address: str | None = None,
    actors: int | None = None,
    cache_dir: str | Path = "features/",
    progress: Callable[[Progress], None] | None = None,
    **options: Unpack[ExtractionOptions],
) -> FeatureStore:
    """As :func:`saln.extract_features`, computed by the actors of a Ray cluster.

    The store is the one that a local extraction makes, and either goes on with what the
    other has begun. The same bytes come out where device, batch size and threads are the
    same; an actor without a GPU computes with one thread.

    Args:
        dataset: What the driver checks; sent to the actors where ``load`` is not given.
        backbone: As there, and so are the arguments that are not here.
        load: Called by each actor for the data set, on its own machine; it must be the
            same one.
        address: The cluster's, ``HOST:PORT``, ``ray://HOST:PORT`` or ``auto``; a connection
            that is there is used, and with none given one is started on this machine.
        actors: How many; when not given, one a GPU of the cluster, or a core.
        progress: Called after every shard, and once before the first.
        options: As there; but ``device`` is ``"cpu"`` or ``"cuda"``, where an actor takes one
            GPU, and when not given a GPU where the cluster has one.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: As there; no cluster at the address; more actors than it has room for.
        DataError: As there; a machine whose data set is another; actors that keep dying.
    """
    if actors is not None and actors < 1:
        raise not_allowed("actors", actors, "at least 1")
    with connected(address, actors) as ray:
        device, actors = _room(ray, options.get("device"), actors)
        options["device"] = "cpu"  # of the driver, which computes nothing and may have no GPU
        options["batch_size"] = options.get("batch_size") or inference_batch_size(device)
        if options.get("mixed_precision") is None:
            options["mixed_precision"] = device.type == "cuda"
        plan = plan_extraction(
            dataset, backbone, cache_dir=cache_dir, rank=0, world_size=1, **options
        )
        if (whole := plan.found()) is not None:
            return whole
        job = replace(plan.job, device=device)
        if load is not None:
            # Each actor opens its own; the driver's may be gigabytes.
            job = replace(job, dataset=())
        sent = ray.put(job)
        needs = {"num_gpus": 1} if device.type == "cuda" else {"num_cpus": 1}
        remote = ray.remote(**needs)(_Extractor)
        wanted = plan.manifest.identity["dataset_fingerprint"]
        pool = _Pool(ray, lambda: remote.remote(sent, load, wanted), actors)
        try:
            return plan.run(lambda writer: _fill(pool, plan, writer, progress))
        finally:
            pool.close()


def _room(
    ray: Any, device: torch.device | str | None, actors: int | None
) -> tuple[torch.device, int]:
    """Where the actors compute, and how many there are."""
    has = ray.cluster_resources()
    on_gpu = has.get("GPU", 0) >= 1 if device is None else torch.device(device).type == "cuda"
    kind = "GPU" if on_gpu else "CPU"
    room = int(has.get(kind, 0))
    actors = actors or max(1, room)
    if actors > room:
        raise InputError(
            f"{parameter('actors', actors)} needs {actors} {kind}s, but the Ray cluster has "
            f"{room}; give at most that many, or add machines"
        )
    return torch.device("cuda" if on_gpu else "cpu"), actors


def _fill(
    pool: _Pool, plan: Plan, writer: StoreWriter, progress: Callable[[Progress], None] | None
) -> None:
    meter = Meter(writer.manifest.rows, writer.manifest.rows_done, progress)
    meter.advance(0)
    for claimed in claimed_shards(writer):
        plan = replace(plan, manifest=writer.manifest)  # a store begun has its own shard size
        for number, (features, labels, skipped, seconds) in pool.compute(claimed, plan):
            writer.write(number, features, labels, skipped, seconds / len(pool.actors))
            meter.advance(len(labels))
