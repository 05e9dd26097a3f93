"""Processes that have imported everything already: a server that forks for every start.

To import torch and the library takes a process three seconds, and the tests start a hundred of
them. What is started here is a process of its own with its own number, folder, environment,
streams and signals; only the imports are another's. The starts of a true interpreter, by the
installed command, by ``python -m saln`` and by ``torchrun``, have tests of their own; so has
what would hang on the seed of Python's hashes, which all that are forked share.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import importlib
import json
import os
import pickle
import random
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from PIL import Image

TESTS = Path(__file__).parents[1]
SOURCE, BENCHMARKS = TESTS.parent / "src", TESTS.parent / "benchmarks"
IMPORTED = (
    "helpers.quick_figures", "helpers.rank_processes", "saln.cli.compare_command",
    "saln.cli.features_command", "saln.cli.labels_command", "saln.cli.select_command",
    "saln.experiments.run", "saln.review.review_run", "saln.training.loop",
    "saln.curation.offline_selection", "pyarrow.parquet",
)  # fmt: skip
# What a command imports as it goes on: a second of each. Those that fork loaders go without,
# because a process is forked the faster the less it holds.
BY_COMMANDS = (
    "saln.cli.display", "saln.data.dataset_loaders", "saln.data.hugging_face",
    "saln.features.library_networks", "saln.features.network_builders",
    "saln.features.transformers_networks", "sklearn.datasets", "torch.profiler",
    "torch.utils.serialization.config",
)  # fmt: skip


class WarmProcess:
    """One that was started; as much of ``subprocess.Popen`` as the tests need."""

    def __init__(self, server: WarmServer, pid: int, name: str, folder: Path) -> None:
        self.server, self.pid, self.name = server, pid, name
        self.said = folder / f"{name}.err"
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its status, or None while it is at work."""
        if self.returncode is None:
            self.returncode = self.server.ask({"pid": self.pid})
        return self.returncode

    def wait(self, seconds: float = 240) -> int:
        """Its status when it has ended; one that does not end says where it is, and is ended."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                where = self.where()
                self.kill()
                raise TimeoutError(f"{self.name} did not end within {seconds} s\n{where}")
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def where(self) -> str:
        """What it said last: where each thread of it and of its loaders' workers is."""
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(self.pid, signal.SIGUSR1)
        time.sleep(1)
        return f"{self.name}: {self.said.read_text()[-20_000:]}"

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WarmServer:
    """Starts processes that begin with everything imported."""

    def __init__(self) -> None:
        ours, its = socket.socketpair()
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(SOURCE), str(TESTS), str(BENCHMARKS)]),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, str(its.fileno())],
            env=environment, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL,
        )  # fmt: skip
        its.close()
        self.stream = ours.makefile("rw")
        ours.close()

    def close(self) -> None:
        self.stream.close()
        self.process.wait()

    def ask(self, request: Mapping[str, Any]) -> Any:
        self.stream.write(json.dumps(request) + "\n")
        self.stream.flush()
        answer = self.stream.readline()
        assert answer, "the server of warm processes has ended"
        return json.loads(answer)

    def start(
        self,
        arguments: Sequence[object],
        folder: Path,
        *,
        script: Path | None = None,
        environment: Mapping[str, str] | None = None,
        name: str = "process",
        call: str = "",
    ) -> WarmProcess:
        """Starts ``saln``, or a script, in a folder and a session of its own.

        What it says is in the files ``NAME.out`` and ``NAME.err`` there. Reports have no figures.
        """
        job = {
            "arguments": [*map(str, arguments)], "folder": str(folder), "name": name,
            "script": None if script is None else str(script), "call": call,
            "environment": {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        }  # fmt: skip
        return WarmProcess(self, self.ask(job), name, folder)

    def run(self, arguments: Sequence[object], folder: Path, **options: Any) -> Ended:
        """The same, and waits for its end."""
        process = self.start(arguments, folder, **options)
        return Ended(process.wait(), folder, process.name)

    def start_call(
        self,
        function: Callable[..., Any],
        arguments: Sequence[object],
        folder: Path,
        name: str = "call",
    ) -> WarmProcess:
        """Starts a function of a module; what it gives is written over the file of its call."""
        (folder / name).write_bytes(pickle.dumps((function, arguments)))
        return self.start([], folder, call=name, name=name)

    def call_together(
        self, function: Callable[..., Any], calls: Sequence[Sequence[object]], folder: Path
    ) -> list[Any]:
        """What a function of a module gives for each call, all at a time, each in its process."""
        given = [
            self.start_call(function, arguments, folder, f"call-{number}")
            for number, arguments in enumerate(calls)
        ]
        results = []
        for process in given:
            assert process.wait() == 0, (folder / f"{process.name}.err").read_text()
            results.append(pickle.loads((folder / process.name).read_bytes()))
        return results

    def run_ranks(
        self, arguments: Sequence[object], folder: Path, ranks: int, **options: Any
    ) -> list[Ended]:
        """Several at a time that find each other, as ``torchrun`` starts them."""
        started = [
            self.start(arguments, folder, name=f"rank-{rank}", environment=group, **options)
            for rank, group in enumerate(self.groups(ranks))
        ]
        return [Ended(process.wait(), folder, process.name) for process in started]

    @staticmethod
    def groups(ranks: int) -> list[dict[str, str]]:
        """What each of several processes is told by ``torchrun``."""
        port = free_port()
        shared = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
        return [
            {"MASTER_ADDR": "127.0.0.1"}
            | {key: str(value) for key, value in (shared | {"RANK": r, "LOCAL_RANK": r}).items()}
            for r in range(ranks)
        ]


class WarmBranch(WarmServer):
    """A server forked from another that has imported more, for the tests of one file."""

    def __init__(self, server: WarmServer, names: Sequence[str]) -> None:
        self.server = server
        with socket.create_server(("127.0.0.1", 0)) as door:
            door.settimeout(60)
            self.pid = server.ask({"imports": [*names], "port": door.getsockname()[1]})
            joined, _ = door.accept()
        joined.settimeout(None)
        self.stream = joined.makefile("rw")
        joined.close()

    def close(self) -> None:
        self.stream.close()
        while self.server.ask({"pid": self.pid}) is None:
            time.sleep(0.01)


def free_port() -> int:
    """One that nobody is given by chance before it is used, as those above 32,767 are."""
    ports = list(range(20_000, 32_000))
    random.Random(os.urandom(8)).shuffle(ports)
    for port in ports:
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free from 20,000 to 32,000")


class Ended:
    """The status and the streams of a process that has come to its end."""

    def __init__(self, status: int, folder: Path, name: str) -> None:
        self.returncode = status
        self.stdout = (folder / f"{name}.out").read_text()
        self.stderr = (folder / f"{name}.err").read_text()


def import_all(names: Sequence[str]) -> None:
    if sys.modules.keys() >= set(names):
        return
    for name in names:
        importlib.import_module(name)
    Image.init()  # imports what reads its formats
    gc.collect()
    gc.freeze()  # no search for garbage in a process makes it copy what it shares


def serve(stream: IO[str]) -> None:
    """Answers a line of JSON with one: a process's number, or its status (null: at work)."""
    statuses: dict[int, int] = {}
    started: set[int] = set()
    for line in stream:
        request = json.loads(line)
        if "pid" in request:
            pid = request["pid"]
            if pid not in statuses:
                ended, status = os.waitpid(pid, os.WNOHANG)  # others may want to start
                if ended:
                    statuses[pid] = os.waitstatus_to_exitcode(status)
            answer = statuses.get(pid)
        else:
            if "imports" not in request and request["script"] is None and not request["call"]:
                import_all(BY_COMMANDS)
            answer = os.fork()
            if answer == 0:
                stream.close()
                if "imports" in request:
                    branch(request["imports"], request["port"])
                be(request)
            started.add(answer)
        stream.write(json.dumps(answer) + "\n")
        stream.flush()
    for pid in started - set(statuses):  # left by a test that failed
        os.kill(pid, signal.SIGKILL)


def branch(names: Sequence[str], port: int) -> NoReturn:
    """Serves beside the server that it was forked from."""
    with socket.create_connection(("127.0.0.1", port)) as own, own.makefile("rw") as lines:
        import_all(names)
        serve(lines)
    os._exit(0)


def be(job: dict[str, Any]) -> NoReturn:
    """What a process that was started does; its end is that of an interpreter."""
    os.setsid()
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{job['name']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    faulthandler.register(signal.SIGUSR1, 2)  # forked workers inherit it
    status = 1
    try:
        status = called(job)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for what an interpreter does
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def called(job: dict[str, Any]) -> int:
    from helpers.quick_figures import not_drawn

    sys.argv = [job["script"] or "saln", *job["arguments"]]
    if job["script"] is not None:
        runpy.run_path(job["script"], run_name="__main__")
        return 0
    if job["call"]:
        place = Path(job["call"])
        function, arguments = pickle.loads(place.read_bytes())
        place.write_bytes(pickle.dumps(function(*arguments)))
        return 0
    from saln.cli import main

    with not_drawn():
        return main(job["arguments"])


if __name__ == "__main__":
    import_all(IMPORTED)
    # A worker that persists does not hear of its end where its loader is collected in a cycle,
    # because its queue is closed before. Torch waits so many seconds for it, usually 5.
    sys.modules["torch.utils.data._utils"].MP_STATUS_CHECK_INTERVAL = 0.2
    os.fsync = lambda descriptor: None  # type: ignore[assignment]  # as in conftest.py
    with socket.socket(fileno=int(sys.argv[1])) as own, own.makefile("rw") as lines:
        serve(lines)
