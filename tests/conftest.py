"""Every test: one thread, deterministic algorithms, no network but loopback, nothing kept between tests."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


@pytest.fixture(autouse=True)
def deterministic() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test fail at once, with the address, when it reaches for the network."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if isinstance(host, str) and host and not host.startswith(_LOOPBACK):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def import_path() -> list[str]:
    """The import path before the first test."""
    return list(sys.path)


@pytest.fixture(autouse=True)
def no_other_copy_of_the_project(import_path: list[str]) -> Iterator[None]:
    """Fail the test that leaves another `pipeline` on the import path, which processes of later tests would import.

    MLflow puts the code that a version ships there, and leaves it: load versions inside `import_path_restored()`.
    """
    yield
    copies = [entry for entry in sys.path if entry not in import_path and Path(entry, "pipeline").is_dir()]
    sys.path[:] = [entry for entry in sys.path if entry not in copies]
    assert not copies


@pytest.fixture(scope="session", autouse=True)
def nothing_new_in_the_checkout() -> Iterator[None]:
    """Fail if a test left a file at the top of the repository.

    A run that names no MLflow store writes `mlflow.db` there, which may be its developer's own.
    """
    before = _top_level()
    yield
    assert not _top_level() - before


def _top_level() -> set[str]:
    return {path.name for path in Path(__file__).parents[1].iterdir() if not path.name.startswith(".")}


@pytest.fixture
def closed_port() -> int:
    """Port of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Port of a service that takes connections and never says a word, as a hanging server does."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """Endpoint of an S3 server on loopback; this process and its children find it and its keys in their variables."""
    from moto.server import ThreadedMotoServer  # a second of imports, only for tests of object stores

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables["AWS_ENDPOINT_URL"]
    server.stop()


@pytest.fixture
def bucket(object_store: str, request: pytest.FixtureRequest) -> str:
    """URL of a new empty bucket."""
    import s3fs

    # A client keeps the endpoint of its first use in the process, which may be that of a test of unreachable addresses.
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{abs(hash(request.node.nodeid)) % 10**9}"
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(name)
    return f"s3://{name}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; this machine has none")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)
