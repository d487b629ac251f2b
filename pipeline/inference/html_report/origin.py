"""How a report was made: the command, the code, the date and the weights."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.inference.evaluation import Evaluation
from shards.format.files import sha256_of
from shards.secrets import without_secrets

_HERE = Path(__file__).resolve()
_TIMEOUT_S = 10


@dataclass(frozen=True)
class WeightFile:
    """A file of weights that the report shows, by its role."""

    role: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Origin:
    """What the end of a report says."""

    command: str
    code: str
    date: str
    weights: Sequence[WeightFile]


def origin_of(command: str, evaluation: Evaluation) -> Origin:
    """Return the origin of a report that is made now."""
    weights = []
    for model, evaluated in zip(evaluation.models, evaluation.report.models, strict=True):
        weights.append(WeightFile(f"{evaluated.label}: generator", str(model.weights), evaluated.weights_sha256))
        if model.run is not None:
            weights += (
                WeightFile(f"{evaluated.label}: {path.stem.replace('_', ' ')}", str(path), sha256_of(path))
                for path in sorted(model.run.discriminator().parent.glob("discriminator*.safetensors"))
            )
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return Origin(without_secrets(command), code_version(), date, weights)


def code_version() -> str:
    """Return the version of this package, and its commit where it runs from a git checkout."""
    try:
        release = f"sed-trainer {version('sed-trainer')}"
    except PackageNotFoundError:
        release = "sed-trainer"
    # An installed package may lie inside the checkout of another project.
    if _git("ls-files", "--error-unmatch", _HERE.name) is None:
        return release
    changes = " with uncommitted changes" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{release}, commit {_git('rev-parse', 'HEAD') or 'unknown'}{changes}"


def _git(*arguments: str) -> str | None:
    """Return what git prints; None where it fails or is missing."""
    command = ["git", "-C", str(_HERE.parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
