"""Where a run is from: who started it, with which command and which code."""

from __future__ import annotations

import contextlib
import getpass
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shards.secrets import command_without_secrets

_HERE = Path(__file__).resolve()
_TIMEOUT_S = 10


@dataclass(frozen=True)
class Code:
    """The code that runs.

    Attributes:
        release: Name and version of this package.
        commit: Of the git checkout that it runs from; None where it is installed.
        has_changes: Whether the checkout has uncommitted changes.
    """

    release: str
    commit: str | None = None
    has_changes: bool = False

    def __str__(self) -> str:
        """Return all of it, for people."""
        changes = " with uncommitted changes" if self.has_changes else ""
        return self.release if self.commit is None else f"{self.release}, commit {self.commit}{changes}"


def code() -> Code:
    """Return the version of this package, and its commit where it runs from a git checkout."""
    try:
        release = f"sed-trainer {version('sed-trainer')}"
    except PackageNotFoundError:
        release = "sed-trainer"
    # An installed package may lie inside the checkout of another project.
    if _git("ls-files", "--error-unmatch", _HERE.name) is None:
        return Code(release)
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return Code(release, _git("rev-parse", "HEAD") or "unknown", bool(changes))


def _git(*arguments: str) -> str | None:
    """Return what git prints; None where it fails or is missing."""
    command = ["git", "-C", str(_HERE.parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def source_tags() -> dict[str, str]:
    """Return the tags of this process's runs; the UI shows those of MLflow's own names as Source and Created by."""
    ours = code()
    tags = {
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": command_without_secrets(["python", *sys.argv]),
        "code": str(ours),
    }
    if ours.commit is not None:
        tags |= {"mlflow.source.git.commit": ours.commit, "uncommitted_changes": "yes" if ours.has_changes else "no"}
    with contextlib.suppress(OSError, KeyError):  # a user without a name, as in some containers
        tags["mlflow.user"] = getpass.getuser()
    return tags
