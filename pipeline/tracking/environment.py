"""How this project uses MLflow: quietly, and never waiting long for a dead server."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

DEFAULT_STORE = "sqlite:///mlflow.db"
"""Where runs go when MLFLOW_TRACKING_URI is not set: MLflow's own default, a file in the working folder."""

DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Set where the user has set nothing else."""


def prepare() -> None:
    """Set the defaults and turn the chatter of MLflow's libraries down."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow's own warnings to itself while it works for us; errors still come out."""
    prepare()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def first_line(error: Exception) -> str:
    """Return what an error says, in one line; its kind where it says nothing."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
