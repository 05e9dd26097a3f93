"""Fixtures of several of these files."""

from __future__ import annotations

import socket
from collections.abc import Callable
from multiprocessing.connection import Listener
from typing import Any

import pytest
from helpers.feature_examples import with_pipe
from helpers.warm_processes import WarmServer


@pytest.fixture
def start(warm: WarmServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Starts a child process that calls a function; gives it and the end of a pipe to it."""

    def begin(target: Callable[..., None], *arguments: Any) -> Any:
        with Listener() as door:
            call = (door.address, target, *arguments)
            process = warm.start_call(with_pipe, call, tmp_path_factory.mktemp("child"))
            return process, door.accept()

    return begin


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a name was looked up for, or a connection was tried to; none succeeds."""
    tried: list[Any] = []

    def unreachable(*args: Any, **kwargs: Any) -> None:
        # A thread that an earlier test's library left may ask its own machine.
        if args[0] != "localhost":
            tried.append(args)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    return tried
