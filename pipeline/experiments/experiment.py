"""An experiment: arms that differ in one setting each, trained on the same samples under one budget.

The data, their order and every degradation of a run hang on its seed alone, so two arms of one seed see the same
samples in the same order, from the same initial generator: what differs between their results is the arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

from pipeline.errors import positive, refuse
from pipeline.metrics.choice import find_metric
from shards.schema import FileStem, Range

Tables: TypeAlias = Mapping[str, Any]
"""What differs from a preset's [train], as a preset file would say it."""


@dataclass(frozen=True)
class Arm:
    """One of the things compared."""

    title: str
    """A few words for tables and charts."""
    train: Tables = field(default_factory=dict)
    """What differs from the budget's preset."""
    as_large_as: str = ""
    """Name of an arm: this one's discriminator gets as many features as give it that one's number of parameters."""


@dataclass(frozen=True)
class Budget:
    """What a run of every arm may cost, and on which data."""

    preset: str
    """Preset that every arm starts from."""
    start: str = ""
    """Preset that trains the generator which every arm starts from, once; empty: as the preset says."""
    start_train: Tables = field(default_factory=dict)
    """What differs from that preset."""
    train: Tables = field(default_factory=dict)
    """What differs from the preset, in every arm."""


@dataclass(frozen=True)
class Experiment:
    """An experiment file."""

    title: str
    """The question in a line."""
    question: str
    """A paragraph: the question, and what would count against it."""
    baseline: FileStem
    """The arm that the others are compared with."""
    primary: str
    """The metric that decides."""
    margin: float
    """Differences of the primary metric below this mean nothing to a person: the margin of equivalence."""
    metrics: tuple[str, ...]
    """All metrics that are measured, by name."""
    seeds: tuple[Annotated[int, Range(0, 2**31 - 1)], ...]
    """Each arm is trained with each; one seed gives all arms the same samples and initial generator."""
    budgets: Mapping[FileStem, Budget]
    """By name."""
    arms: Mapping[FileStem, Arm]
    """By name, in the order of tables and charts."""

    def __post_init__(self) -> None:
        """Check what can be checked without a budget."""
        refuse(
            [
                *positive(margin=self.margin),
                None
                if self.baseline in self.arms
                else f"baseline={self.baseline!r} is no arm; arms: {_listed(self.arms)}",
                *(
                    f"arms.{name}.as_large_as={arm.as_large_as!r} is no other arm; arms: {_listed(self.arms)}"
                    for name, arm in self.arms.items()
                    if arm.as_large_as and (arm.as_large_as == name or arm.as_large_as not in self.arms)
                ),
                *(
                    f"arms.{name}: the name is that of other pictures"
                    for name in ("HR", "bicubic")
                    if name in self.arms
                ),
                None if len(self.arms) > 1 else "an experiment needs two arms or more",
                None if self.seeds else "seeds is empty",
                None if len(set(self.seeds)) == len(self.seeds) else f"seeds={list(self.seeds)} has one twice",
                None if self.primary in self.metrics else f"primary={self.primary!r} is not in metrics",
                None if self.budgets else "an experiment needs a budget",
            ]
        )
        for name in self.metrics:
            find_metric(name)


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names)
