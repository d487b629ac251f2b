"""Open the MLflow UI on the store that the jobs here write to."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from jobs.terminal import run_job, say
from pipeline.tracking.environment import prepare
from shards.errors import InputError

DEFAULT_STORE = "sqlite:///mlflow.db"


@dataclass(frozen=True)
class UiConfig:
    """Where the UI listens."""

    port: int = 5000
    """Port on this machine."""
    host: str = "127.0.0.1"
    """Address; 0.0.0.0 shows it to the network, without any password."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/ui.py --help`."""
    config = tyro.cli(UiConfig, args=argv, prog="python jobs/ui.py", description=__doc__)
    check_port(config.host, config.port)
    prepare()
    store = os.environ.get("MLFLOW_TRACKING_URI", DEFAULT_STORE)
    say(f"store: {store}\nUI: http://{config.host}:{config.port}  (Ctrl-C ends it)")
    program = str(Path(sys.executable).parent / "mlflow")
    arguments = ["ui", "--backend-store-uri", store, "--host", config.host, "--port", str(config.port)]
    # Warnings of the server's libraries about each other; its errors still come out.
    os.execve(program, [program, *arguments], os.environ | {"PYTHONWARNINGS": "ignore"})


def check_port(host: str, port: int) -> None:
    """Refuse a port that something else listens on.

    Raises:
        InputError: The port is in use, or may not be opened.
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
