"""Real servers on loopback, to be killed and restarted: PostgreSQL, an S3 store, and MLflow's server on both.

with open_database() as database, open_object_store(folder) as store:
    with open_mlflow(database.uri, folder, store) as server:
        server.kill()
        server.start()
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from harness import BIN

_START_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 30.0
_USER = "postgres"


AnyServer = TypeVar("AnyServer", bound="Server")


class Server:
    """A server that is a program: `start`, `stop`, `kill` and `restart` it as often as needed, on one port.

    Args:
        command: The program and its arguments.
        responds: Returns when the server does, and raises an OSError until then.
        log: Where its output goes.
        environment: Variables beyond those of this process.
        user: Who runs it; this process's user where None.
        crash: The signal after which nothing is saved and nobody is waited for.
    """

    def __init__(
        self,
        command: Sequence[str],
        responds: Callable[[], object],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        crash: signal.Signals = signal.SIGKILL,
    ) -> None:
        self._command, self._responds, self._log = list(command), responds, log
        # MLflow starts programs of this environment by their names, which the PATH has only where it is activated.
        search = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        self._environment, self._user, self._crash = os.environ | search | dict(environment or {}), user, crash
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it responds."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                env=self._environment,
                user=self._user,
                cwd=self._log.parent,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                self._responds()
                return
            except OSError:
                text = self._log.read_text(errors="replace")[-3000:]
                assert self._process.poll() is None, f"{self._command[0]} ended while it started:\n{text}"
                assert time.monotonic() < deadline_s, f"{self._command[0]} does not respond:\n{text}"
                time.sleep(0.05)

    def stop(self) -> None:
        """End it as its administrator would."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(self._crash)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)  # its workers too
        process.wait(_END_TIMEOUT_S)


class Database(Server):
    """A PostgreSQL server with one empty database.

    Attributes:
        uri: Of the database, for MLflow.
        variables: Where clients find it; any password is the right one.
    """

    def __init__(self, folder: Path, programs: Path, user: str | None) -> None:
        data, port = folder / "data", free_port()
        self.variables = {
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(port),
            "POSTGRES_USER": _USER,
            "POSTGRES_DB": _USER,
        }
        initdb = [str(programs / "initdb"), "-D", str(data), "-U", _USER, "--auth=trust", "--no-sync"]
        initdb += ["--no-locale", "-E", "UTF8"]
        subprocess.run(initdb, check=True, capture_output=True, user=user, cwd=folder)
        self.uri = f"postgresql+psycopg://{_USER}@127.0.0.1:{port}/{_USER}"
        command = [str(programs / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
        # SIGQUIT: its processes end at once and save nothing. SIGKILL would leave those that serve a connection.
        super().__init__(
            [*command, "-c", "fsync=off"], self._connect, folder / "log.txt", user=user, crash=signal.SIGQUIT
        )

    def execute(self, statement: str, name: str = _USER) -> None:
        """Run a statement of SQL in a database of this server."""
        import psycopg

        with psycopg.connect(self._address(name), autocommit=True) as connection:
            connection.execute(statement)

    def _address(self, name: str = _USER) -> str:
        return f"{self.uri.replace('+psycopg', '').rpartition('/')[0]}/{name}"

    def _connect(self) -> None:
        import psycopg

        try:
            psycopg.connect(self._address()).close()
        except psycopg.OperationalError as error:
            raise ConnectionError from error


@contextlib.contextmanager
def open_database() -> Iterator[Database]:
    """Start a PostgreSQL server with a new data folder; skip the test where PostgreSQL is not installed."""
    programs = _database_programs()
    # PostgreSQL refuses to run as root, and pytest's temporary folders are closed to other users.
    user = _USER if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="postgresql-", ignore_cleanup_errors=True) as folder:
        if user is not None:
            shutil.chown(folder, user)
        with running(Database(Path(folder), programs, user)) as database:
            yield database


def _database_programs() -> Path:
    found = [Path(path).resolve().parent] if (path := shutil.which("postgres")) else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    found = [folder for folder in found if (folder / "initdb").is_file()]
    if not found:
        # A package of the system, which root installs; `.ci/run` does, and ends where it cannot.
        pytest.skip("requires PostgreSQL; make servers installs it")
    return found[-1]


class ObjectStore(Server):
    """An S3 server with one bucket, in memory: a restart empties it, and the bucket is made again.

    Attributes:
        uri: Of the bucket.
        variables: Where clients find it, and its keys.
    """

    def __init__(self, log: Path) -> None:
        port = free_port()
        self.uri = "s3://artifacts"
        self.variables = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        command = [str(BIN / "moto_server"), "--host", "127.0.0.1", "--port", str(port)]
        super().__init__(command, self._make_bucket, log)

    def object_names(self) -> list[str]:
        """Return the keys of all objects."""
        client, name = self._client(), self.uri.removeprefix("s3://")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=name)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def _make_bucket(self) -> None:
        from botocore.exceptions import BotoCoreError

        try:
            self._client().create_bucket(Bucket=self.uri.removeprefix("s3://"))
        except BotoCoreError as error:
            raise ConnectionError from error

    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.variables["AWS_ENDPOINT_URL"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 1}),
        )


@contextlib.contextmanager
def open_object_store(folder: Path) -> Iterator[ObjectStore]:
    """Start an S3 server with an empty bucket.

    Args:
        folder: For its output, `object_store.txt`.
    """
    with running(ObjectStore(folder / "object_store.txt")) as store:
        yield store


class MlflowServer(Server):
    """MLflow's server.

    Attributes:
        uri: The value of MLFLOW_TRACKING_URI.
    """

    def __init__(self, database_uri: str, artifacts: str, log: Path, variables: Mapping[str, str]) -> None:
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        command = [str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
        environment = {
            "MLFLOW_BACKEND_STORE_URI": database_uri,
            "MLFLOW_ARTIFACTS_DESTINATION": artifacts,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONWARNINGS": "ignore",
        }
        super().__init__(command, self._ping, log, environment=environment | dict(variables))

    def _ping(self) -> None:
        urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()


@contextlib.contextmanager
def open_mlflow(database_uri: str, folder: Path, store: ObjectStore | None = None) -> Iterator[MlflowServer]:
    """Start MLflow's server: runs in a database, artifacts in an object store or, without one, a folder.

    Args:
        database_uri: Its tables are created if it has none.
        folder: For its output, `mlflow.txt`, and for artifacts.
        store: For artifacts; the server passes them on, and clients need no keys.
    """
    artifacts, variables = (str(folder / "artifacts"), {}) if store is None else (store.uri, store.variables)
    with running(MlflowServer(database_uri, artifacts, folder / "mlflow.txt", variables)) as server:
        yield server


@contextlib.contextmanager
def running(server: AnyServer) -> Iterator[AnyServer]:
    """Start a server for this block."""
    server.start()
    try:
        yield server
    finally:
        server.kill()


def free_port() -> int:
    """Return a port of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
