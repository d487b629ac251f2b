"""Open the MLflow UI on the store that the jobs write to."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from jobs.command_line import CommandLine
from jobs.terminal import run_job
from pipeline.progress import say
from pipeline.tracking.environment import DEFAULT_STORE, prepare
from pipeline.tracking.moved import correct_paths
from shards.errors import InputError

COMMAND = CommandLine(
    "python jobs/ui.py",
    "Open the MLflow UI on the store that the jobs write to: MLFLOW_TRACKING_URI, else mlflow.db in this folder.",
    ("--port 5001  # when 5000 is taken",),
)


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
    check_port(config.host, config.port)
    prepare()
    store = os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_STORE)
    correct_paths(store)
    say(f"store: {store}\nUI: http://{config.host}:{config.port}  (Ctrl-C ends it)")
    program = str(Path(sys.executable).parent / "mlflow")
    arguments = ["ui", "--host", config.host, "--port", str(config.port)]
    # Other users see a program's arguments, and an address may hold a password. The other variable hides the warnings
    # that the server's libraries print about each other; its errors still appear.
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": store, "PYTHONWARNINGS": "ignore"}
    os.execve(program, [program, *arguments], environment)


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
