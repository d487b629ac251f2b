"""Open the MLflow UI on the store that the jobs write to."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from jobs.command_line import CommandLine
from jobs.terminal import run_job
from pipeline.progress import say
from pipeline.tracking.environment import DEFAULT_STORE, check_reachable, prepare
from pipeline.tracking.moved import correct_paths
from shards.errors import InputError

COMMAND = CommandLine(
    "python jobs/ui.py",
    "Open the MLflow UI on the store that the jobs write to: MLFLOW_TRACKING_URI, else mlflow.db in this folder.",
    ("--port 5001  # when 5000 is taken",),
)
# MLflow's default is its mode for language models, whatever an experiment's tag `mlflow.experimentKind` says.
MODE = 'Choose "Model training" at the top left once, or the UI hides the registry; the browser remembers it.'


@dataclass(frozen=True)
class UiConfig:
    """Where the UI listens."""

    port: int = 5000
    """Port on this machine."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 opens the UI to the network, without a password."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/ui.py --help`."""
    config = COMMAND.parse(UiConfig, argv)
    prepare()
    store = os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_STORE)
    if urlsplit(store).scheme in {"http", "https"}:
        _check_opens(store)
        say(f"MLFLOW_TRACKING_URI is a server, which has a UI of its own: {page(store)}\n{MODE}")
        return 0
    check_port(config.host, config.port)
    _check_opens(store)
    correct_paths(store)
    say(f"store: {store}\nUI: {page(f'http://{config.host}:{config.port}')}  (Ctrl-C ends it)\n{MODE}{reach(config)}")
    program = str(Path(sys.executable).parent / "mlflow")
    arguments = ["ui", "--host", config.host, "--port", str(config.port)]
    # Other users see a program's arguments, and an address may hold a password. The other variable hides the warnings
    # that the server's libraries print about each other; its errors still appear. The processes that the last one
    # prevents evaluate language models.
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": store, "PYTHONWARNINGS": "ignore"}
    environment.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.execve(program, [program, *arguments], environment)


def _check_opens(store: str) -> None:
    try:
        check_reachable(store)
    except ConnectionError as error:
        raise InputError(f"MLFLOW_TRACKING_URI cannot be opened: {error}") from error


def page(server: str) -> str:
    """Return the address of a server's experiments in the mode that `MODE` names; MLflow's links drop it again."""
    return f"{server.rstrip('/')}/#/experiments?workflowType=machine_learning"


def reach(config: UiConfig) -> str:
    """Return how another machine reaches a UI that listens on loopback only."""
    if config.host not in {"127.0.0.1", "localhost", "::1"}:
        return ""
    port = config.port
    return f"\nfrom another machine: ssh -L {port}:127.0.0.1:{port} USER@HOST, and the same address in its browser"


def check_port(host: str, port: int) -> None:
    """Check that nothing else listens on a port.

    Raises:
        InputError: The port is in use, or this process must not open it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"port {port} on {host} cannot be used: {reason}; choose another: make ui PORT={min(port + 1, 65535)}"
            ) from error


if __name__ == "__main__":
    sys.exit(run_job(main))
