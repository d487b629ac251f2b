"""Compare arms of an experiment: train each with every seed under one budget, measure, and write a report."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jobs.command_line import PRESETS, CommandLine
from jobs.sample_photos import prepare_validation_photos
from jobs.terminal import EXIT_FAULTS, run_job
from pipeline.config.presets import PresetFolder
from pipeline.progress import Progress, say
from shards.errors import InputError
from shards.format.storage import StoragePath
from shards.secrets import command_without_secrets

if TYPE_CHECKING:
    from pipeline.experiments.comparing import Comparing
    from pipeline.experiments.execution import Task

EXPERIMENTS = PresetFolder(Path(__file__).parent / "experiments", "experiment")
_JOBS = Path(__file__).parent

COMMAND = CommandLine(
    "python jobs/compare.py",
    "Train the arms of an experiment with several seeds under one budget, and compare them: a report with intervals,\n"
    "verdicts, curves and pictures. Rerun the same command to resume.\n\n"
    f"EXPERIMENT: one of {', '.join(EXPERIMENTS.names())}; or a .toml file.",
    (
        "# without arguments: the demo's model with SeD and without, three seeds",
        "table1_rrdb --budget gpu-hour --dry-run  # the runs, and the hours they take",
        "semantics --budget cpu --shards data/shards/photos --sets data/Set5 data/Set14 --workers 2",
        "mine.toml --budget cpu --output runs/compare/mine --seeds 1 2",
        "semantics --study  # writes a page that asks people; then: semantics --votes votes-*.json",
    ),
)


@dataclass(frozen=True)
class CompareConfig:
    """What to compare."""

    experiment: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT")] = "demo"
    """A shipped experiment's name, or the path of a file."""
    budget: str = "cpu"
    """One of the experiment's budgets, such as paper, gpu-hour or cpu."""
    output: Path | None = None
    """Folder of the experiment; default: runs/compare/EXPERIMENT-BUDGET."""
    seeds: tuple[int, ...] = ()
    """Seeds in place of the experiment's."""
    shards: StoragePath | None = None
    """Shards in place of the presets'."""
    sets: tuple[Path, ...] = ()
    """Evaluation sets in place of the presets', in the layouts of jobs/evaluate.py."""
    start: Path | None = None
    """Generator file that every arm starts from, in place of the one that the budget's preset trains."""
    workers: int = 1
    """Runs at a time on this machine; each gets its share of the CPU cores."""
    ray: bool = False
    """Carry out the runs as Ray tasks: on the cluster at RAY_ADDRESS, or under `ray job submit`. All machines see the
    same folders."""
    gpus_per_run: float = 0.0
    """GPUs of each Ray task."""
    study: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Also write study/study.html, which asks people which result looks better (docs/study.md)."""
    votes: tuple[Path, ...] = ()
    """Files that voters saved: only score them, by OUTPUT/study/study.json."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace a study that was made of other pictures; its votes are then worthless."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the runs, what they cost and how long they take, without writing anything."""


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/compare.py --help`."""
    config = COMMAND.parse(CompareConfig, argv)

    from pipeline.experiments.experiment import Experiment
    from pipeline.experiments.plan import Choices, plan

    if config.workers < 1:
        raise InputError(f"--workers must be at least 1; got {config.workers}")
    experiment = EXPERIMENTS.load(config.experiment, Experiment)
    folder = config.output or Path("runs/compare") / f"{Path(config.experiment).stem}-{config.budget}"
    if config.votes:
        from pipeline.experiments.votes import score_votes

        print(score_votes(folder / "study" / "study.json", config.votes).text)
        return 0
    choices = Choices(folder, config.budget, config.seeds, config.shards, config.sets, config.start)
    planned = plan(experiment, choices, PRESETS)

    from pipeline.data.datasets import open_datasets
    from pipeline.data.evaluation import check_sets

    sets = planned.runs[0].preset.train.report.validation_sets
    if not config.dry_run:
        prepare_validation_photos(sets)
        open_datasets(planned.runs[0].preset.train.data)
        check_sets(sets)

    from pipeline.experiments.comparing import Comparing
    from pipeline.experiments.execution import Commands

    commands = Commands((sys.executable, str(_JOBS / "train_sed.py")), (sys.executable, str(_JOBS / "evaluate.py")))
    comparing = Comparing(planned, commands, command_without_secrets(["python", "jobs/compare.py", *argv]))
    if config.dry_run:
        print(f"{comparing.describe(config.workers)}\ndry run: nothing was written")
        return 0
    comparing.check()
    failures = _carry_out(comparing, config)
    if failures:
        listed = "\n".join(f"  {name}: {failure}" for name, failure in failures.items())
        say(f"error: {len(failures)} of {len(planned.runs)} runs are not done; rerun the same command\n{listed}")
        return EXIT_FAULTS
    print(comparing.report())
    if config.study:
        say(comparing.write_study(overwrite=config.overwrite))
    return 0


def _carry_out(comparing: Comparing, config: CompareConfig) -> dict[str, str]:
    """Carry out what is left to do; return why a run is not done, by its name."""
    from pipeline.experiments.execution import execute

    # Those that a batch system or `taskset` left to this process, where the platform says so.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    start = comparing.start_task(cores)
    if start is not None and (failures := execute([start], 1)):
        return failures
    if config.ray:
        return _on_ray(comparing.tasks(cores), config.gpus_per_run)
    tasks = comparing.tasks(max(1, cores // config.workers))
    return execute(tasks, config.workers) if tasks else {}


def _on_ray(tasks: Sequence[Task], num_gpus: float) -> dict[str, str]:
    from jobs.ray_tasks import ray_session
    from pipeline.experiments.execution import carry_out

    with ray_session() as session, Progress("runs", len(tasks), "runs") as bar:
        # A second attempt at a slow run would meet the lock of the first.
        session.double_after_s = math.inf
        failures: dict[str, str] = {}
        for task, failure in session.map(carry_out, tasks, num_gpus=num_gpus):
            bar.advance(1)
            failures |= {} if failure is None else {task.name: failure}
    return failures


if __name__ == "__main__":
    sys.exit(run_job(main))
