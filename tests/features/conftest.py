"""Fixtures of several of these files."""

from __future__ import annotations

import socket
from typing import Any

import pytest


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
