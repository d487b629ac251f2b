"""All runs of an experiment under a budget, with every setting resolved."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.plain import to_plain
from pipeline.config.presets import PresetFolder
from pipeline.config.schema import Preset
from pipeline.errors import ConfigError
from pipeline.experiments.experiment import Budget, Experiment, Tables
from shards.format.storage import StoragePath, as_given

_MUST_AGREE = ("data", "schedule.total_images", "generator.scale", "report")
"""Settings without which the runs of two arms cannot be compared image by image."""


@dataclass(frozen=True)
class Choices:
    """What a command line says beside the experiment's file.

    Attributes:
        folder: Of the experiment.
        budget: Name of one.
        seeds: In place of the file's; empty: the file's.
        shards: In place of the presets'.
        sets: Evaluation sets, in place of the presets'.
        start: Generator file that all arms start from, in place of the budget's.
    """

    folder: Path
    budget: str
    seeds: tuple[int, ...] = ()
    shards: StoragePath | None = None
    sets: tuple[Path, ...] = ()
    start: Path | None = None


@dataclass(frozen=True)
class PlannedRun:
    """One arm trained with one seed.

    Attributes:
        arm: Name of the arm.
        seed: Of the run.
        preset: All its settings; `train.run_dir` is inside the experiment's folder.
    """

    arm: str
    seed: int
    preset: Preset

    @property
    def name(self) -> str:
        """For folders and messages."""
        return f"{self.arm}/seed-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """All runs of an experiment under a budget.

    Attributes:
        experiment: Its file.
        budget_name: Which of its budgets.
        folder: Of the experiment.
        start: The run that trains the generator which all arms start from; None where the presets name another.
        runs: All arms with the first seed, then with the next, so that an interrupted experiment has whole seeds.
    """

    experiment: Experiment
    budget_name: str
    folder: Path
    start: PlannedRun | None
    runs: Sequence[PlannedRun]

    def of_arm(self, arm: str) -> list[PlannedRun]:
        """Return an arm's runs, in the order of the seeds."""
        return [run for run in self.runs if run.arm == arm]

    @property
    def all_runs(self) -> list[PlannedRun]:
        """The runs, after the one that trains their start."""
        return [*([] if self.start is None else [self.start]), *self.runs]


def plan(experiment: Experiment, choices: Choices, presets: PresetFolder) -> Plan:
    """Resolve the settings of every run.

    Raises:
        ConfigError: There is no such budget, an arm's settings have faults, or two arms cannot be compared.
    """
    budget = experiment.budgets.get(choices.budget)
    if budget is None:
        near = difflib.get_close_matches(choices.budget, experiment.budgets, 1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"no budget {choices.budget!r}{hint}; the experiment has {', '.join(experiment.budgets)}")
    given = _given(experiment, choices)
    start, file = None, choices.start
    if file is None and budget.start:
        start = _start(budget, choices.folder, given, presets)
        file = RunFolder(start.preset.train.run_dir).generator
    if file is not None:
        given["generator"] = {"initial_weights": str(file)}
    arms = {name: _arm(budget, name, arm.train, given, presets) for name, arm in experiment.arms.items()}
    for name, arm in experiment.arms.items():
        if arm.as_large_as:
            arms[name] = _as_large(name, arms[name], arms[arm.as_large_as])
    _check_comparable(arms)
    runs = [
        PlannedRun(name, seed, _seeded(arms[name], seed, choices.folder / "runs" / name / f"seed-{seed}"))
        for seed in choices.seeds or experiment.seeds
        for name in experiment.arms
    ]
    return Plan(experiment, choices.budget, choices.folder, start, runs)


def _given(experiment: Experiment, choices: Choices) -> dict[str, Any]:
    """Return what experiment and command line say of every run, as tables of changes."""
    report: dict[str, Any] = {"metrics": list(experiment.metrics)}
    if choices.sets:
        report["validation_sets"] = [str(folder) for folder in choices.sets]
    tables: dict[str, Any] = {"report": report}
    if choices.shards is not None:
        tables["data"] = {"shards": as_given(choices.shards)}
    return tables


def _start(budget: Budget, folder: Path, given: Mapping[str, Any], presets: PresetFolder) -> PlannedRun:
    changes = {"the budget's start_train": budget.start_train, "the command line": given}
    preset = _load(presets, budget.start, changes)
    return PlannedRun("start", preset.train.seed, _seeded(preset, preset.train.seed, folder / "start"))


def _arm(budget: Budget, name: str, train: Tables, given: Mapping[str, Any], presets: PresetFolder) -> Preset:
    return _load(presets, budget.preset, {"the budget": budget.train, f"arm {name}": train, "the command line": given})


def _load(presets: PresetFolder, name: str, changes: Mapping[str, Tables]) -> Preset:
    return presets.load(name, Preset, changes={where: {"train": tables} for where, tables in changes.items()})


def _seeded(preset: Preset, seed: int, run_dir: Path) -> Preset:
    return replace(preset, train=replace(preset.train, seed=seed, run_dir=run_dir))


def _as_large(name: str, preset: Preset, other: Preset) -> Preset:
    """Return an arm whose discriminator has as many features as bring its parameters nearest to another arm's."""
    from pipeline.run.cost import discriminator_parameters  # torch, which most calls' errors need not wait for

    def widened(num_features: int) -> Preset:
        network = replace(preset.train.discriminator, num_features=num_features)
        return replace(preset, train=replace(preset.train, discriminator=network))

    if not hasattr(preset.train.discriminator, "num_features"):
        raise ConfigError(f"arms.{name}.as_large_as: its discriminator has no num_features")
    # Weights of convolutions grow with the square of their number of channels, biases with the number itself.
    wanted, probes = discriminator_parameters(other.train), (16, 32, 64)
    counts = [discriminator_parameters(widened(num_features).train) for num_features in probes]
    square, linear, constant = np.polyfit(probes, counts, 2)
    found = int((-linear + math.sqrt(linear**2 + 4 * square * max(wanted - constant, 0))) / (2 * square))
    return min(
        (widened(max(found, 1)), widened(max(found, 1) + 1)),
        key=lambda one: abs(discriminator_parameters(one.train) - wanted),
    )


def _check_comparable(arms: Mapping[str, Preset]) -> None:
    """Check that the runs of all arms see the same samples, and end after as many."""
    (first, preset), *others = arms.items()
    ours = to_plain(preset.train)
    for name, other in others:
        theirs = to_plain(other.train)
        for path in _MUST_AGREE:
            if _value_at(ours, path) != _value_at(theirs, path):
                raise ConfigError(
                    f"arm {name} has another train.{path} than arm {first}, so they cannot be compared; set it in the "
                    f"budget\n  {name}: {_value_at(theirs, path)}\n  {first}: {_value_at(ours, path)}"
                )


def _value_at(tables: Mapping[str, Any], path: str) -> Any:
    value: Any = tables
    for key in path.split("."):
        value = value[key]
    return value
