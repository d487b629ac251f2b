"""What a checkpoint says beside its tensors, typed where it is read; what nothing reads (versions) is kept as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from shards.errors import shown
from shards.schema import Count, FileStem, Pattern, Range, SchemaError, Sha256, parse

MlflowRunId = Annotated[str, Pattern(r"[A-Za-z0-9_-]{1,64}", "the ID of an MLflow run")]


@dataclass(frozen=True)
class Manifest:
    """The schema of a checkpoint's manifest."""

    files: Mapping[FileStem, Sha256]
    kind: str = "checkpoint"


@dataclass(frozen=True)
class _Damage:
    total: Count
    epoch: Count
    in_epoch: Count


@dataclass(frozen=True)
class _Facts:
    """The facts that a run reads when it resumes."""

    images_seen: Count
    image_manifest: Sha256 | None = None
    mlflow_run_id: MlflowRunId | None = None
    open_report: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    damage: _Damage = dataclasses.field(default_factory=lambda: _Damage(0, 0, 0))
    skipped_updates: Mapping[str, tuple[Count, Count]] = dataclasses.field(default_factory=dict)
    validation_due: bool = False
    initial_weights_left_out: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    discriminator_accuracy: Annotated[float, Range(0, 1)] = 0.5


def checked_facts(facts: object) -> dict[str, Any]:
    """Return the facts of a checkpoint, as they were read.

    Raises:
        SchemaError: A fact has a wrong type or is out of range.
    """
    if not isinstance(facts, dict):
        raise SchemaError(f"expected a table of facts, got {shown(facts)}")
    known = {field.name for field in dataclasses.fields(_Facts)}
    parse({name: value for name, value in facts.items() if name in known}, _Facts, "its facts")
    return facts
