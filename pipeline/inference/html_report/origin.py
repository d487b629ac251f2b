"""How a report was made: the command, the code, the date and the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from pipeline.inference.evaluation import Evaluation
from pipeline.tracking import code
from shards.format.files import sha256_of
from shards.secrets import without_secrets


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
    return Origin(without_secrets(command), str(code()), date, weights)
