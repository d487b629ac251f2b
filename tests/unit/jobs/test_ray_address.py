"""RAY_ADDRESS of a cluster that is gone: an answer within seconds, for every way of being gone."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from jobs.ray_tasks import ray_session
from shards.errors import InputError


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://localhost:{port}"])
def test_address_when_nobody_listens_is_refused_at_once(
    closed_port: int, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    given = address.format(port=closed_port)
    monkeypatch.setenv("RAY_ADDRESS", given)
    start_s = time.monotonic()
    words = rf"Ray cluster unreachable; .*refused.* at RAY_ADDRESS={given}"
    with pytest.raises(InputError, match=words), ray_session():
        pass
    assert time.monotonic() - start_s < 10


@pytest.mark.parametrize("address", ["ray://", "ray://localhost", "ray://localhost:port"])
def test_client_address_without_host_and_port_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    start_s = time.monotonic()
    with pytest.raises(InputError, match=r"Ray cluster unreachable; got it is not ray://HOST:PORT"), ray_session():
        pass
    assert time.monotonic() - start_s < 10


def test_address_when_the_port_never_answers_is_refused_within_seconds(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent_port}")
    start_s = time.monotonic()
    with pytest.raises(InputError, match="Ray cluster unreachable; got timed out"), ray_session():
        pass
    assert time.monotonic() - start_s < 15


def test_address_when_something_else_listens_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang_up(server: socket.socket) -> None:
        connection = server.accept()[0]
        connection.recv(100)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=hang_up, args=(other,), daemon=True).start()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(InputError, match="Ray cluster unreachable; got it closed the connection"), ray_session():
            pass
