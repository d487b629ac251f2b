"""One call of `jobs/compare.py`: what is left to do, and the report once nothing is."""

from __future__ import annotations

import functools
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.errors import TrackingError
from pipeline.experiments.estimate import describe, estimate
from pipeline.experiments.execution import Commands, Layout, Task, is_measured, is_trained, num_images, task_of
from pipeline.experiments.measuring import compare_all, finished_export, read_measured, text_table, write_numbers
from pipeline.experiments.page.page import render_comparison
from pipeline.experiments.picturing import picture_arms
from pipeline.experiments.plan import Plan
from pipeline.experiments.results import ComparisonResults
from pipeline.experiments.study import write_study
from pipeline.experiments.study_file import STUDY_FILE
from pipeline.inference.device import best_device
from pipeline.progress import say
from pipeline.run.checks import resolve
from pipeline.run.cost import Cost, cost_of
from pipeline.tracking import MlflowTracker, Report, RunDescription, check_trackers, code, known_run_id, source_tags
from shards.format.files import check_writable, clean_stale_kind, write_atomically

_LOG = logging.getLogger(__name__)
_REPORTS = ("report.html", "comparison.json", "comparison.csv")


@dataclass(frozen=True)
class Comparing:
    """A plan that is carried out.

    Attributes:
        plan: What to do.
        commands: How runs are trained and measured.
        command: That the user called, for the report.
    """

    plan: Plan
    commands: Commands
    command: str

    @property
    def layout(self) -> Layout:
        """Where everything lies."""
        return Layout(self.plan.folder)

    @functools.cached_property
    def costs(self) -> dict[str, Cost]:
        """What a run of each arm costs."""
        return {arm: cost_of(self.plan.of_arm(arm)[0].preset.train) for arm in self.plan.experiment.arms}

    def describe(self, num_workers: int) -> str:
        """Return the plan with what it costs, as text."""
        return describe(self.plan, estimate(self.plan, self.costs), num_workers)

    def check(self) -> None:
        """Check that all runs in the folder are of this plan, and remove half-written files of killed calls.

        Raises:
            InputError: A run has other settings, or nothing can be written.
        """
        check_trackers(self.plan.runs[0].preset.train.report.trackers)
        check_writable(self.plan.folder)
        for name in _REPORTS:
            clean_stale_kind(self.plan.folder, name)
        for folder in self.layout.own_folders:
            clean_stale_kind(folder, "")
        for run in self.plan.all_runs:
            train = resolve(run.preset.train)
            RunFolder(train.run_dir).check(replace(run.preset, train=train))
        # Now, so that runs which begin together find a database, and need not all make one.
        self._in_mlflow(lambda _: None)

    def start_task(self, num_threads: int) -> Task | None:
        """Return the task that trains the common start; None where it is done or there is none."""
        start = self.plan.start
        if start is None or is_trained(start):
            return None
        return task_of(start, self.layout, self.commands, num_threads, is_start=True)

    def tasks(self, num_threads: int) -> list[Task]:
        """Return what is left to do once there is a start."""
        left = [run for run in self.plan.runs if not is_measured(run, self.layout)]
        return [task_of(run, self.layout, self.commands, num_threads, is_start=False) for run in left]

    def report(self) -> str:
        """Compare the runs, write report.html, comparison.json and comparison.csv, and return the answer as text.

        Raises:
            InputError: A measurement cannot be read, or the primary metric could not be computed.
        """
        results = self._results()
        folder = self.plan.folder
        write_numbers(results, folder / "comparison.json", folder / "comparison.csv")
        write_atomically(folder / "report.html", render_comparison(results))
        say(f"report: {folder / 'report.html'}\nnumbers: {folder / 'comparison.json'}, {folder / 'comparison.csv'}")
        self._track(results)
        return text_table(results)

    def _track(self, results: ComparisonResults) -> None:
        """Show the runs in MLflow under one of the experiment, with its means and files."""
        means = {
            f"{arm}/{metric}": interval.mean
            for arm, of_arm in results.intervals.items()
            for metric, interval in of_arm.items()
            if interval is not None
        }
        folders = [RunFolder(run.preset.train.run_dir) for run in self.plan.all_runs]
        run_ids = [run_id for folder in folders if (run_id := known_run_id(folder.mlflow)) is not None]

        def show(run: MlflowTracker) -> None:
            run.send([Report(num_images(self.plan.runs[0]), means)])
            run.adopt(run_ids)
            for name in _REPORTS:
                run.file(self.plan.folder / name)
            run.end("FINISHED")

        self._in_mlflow(show)

    def _in_mlflow(self, show: Callable[[MlflowTracker], None]) -> None:
        """Open the experiment's own run in MLflow, the same in every call, if it can be reached."""
        folder, experiment = self.plan.folder, self.plan.experiment
        tags = {"experiment": experiment.title, "baseline": experiment.baseline, "primary": experiment.primary}
        name = self.plan.runs[0].preset.train.report.experiment
        run = MlflowTracker(RunDescription(name, f"compare {folder.name}", tags=source_tags() | tags), self._mlflow)
        try:
            run.open()
            show(run)
        except TrackingError as error:
            _LOG.warning("MLflow cannot be reached (%s); %s has everything", error, folder)

    @property
    def _mlflow(self) -> Path:
        return self.plan.folder / "tracking" / "mlflow"

    def write_study(self, *, overwrite: bool) -> str:
        """Write the page that asks people, of the pictures that `report` has written; return where it is.

        Raises:
            InputError: The folder holds another study.
        """
        pictures = self.layout.pictures
        originals = {name: pictures / "HR" / f"{name}.png" for name in self._image_names()}
        arms = {arm: {name: pictures / arm / f"{name}.png" for name in originals} for arm in self.plan.experiment.arms}
        page = write_study(self.plan.folder / "study", arms, originals, overwrite=overwrite)
        return f"study: {page}; send it to voters, keep {STUDY_FILE} beside it, and give their files to --votes"

    def _image_names(self) -> Sequence[str]:
        return read_measured(self.plan.runs[0], self.layout).images

    def _results(self) -> ComparisonResults:
        results = compare_all(self.plan, self.costs, self._origin())
        first = [self.plan.of_arm(arm)[0] for arm in self.plan.experiment.arms]
        interpolated = picture_arms(first, self.layout, results.metrics, self._start_file())
        return replace(results, arms=[replace(arm, interpolated=interpolated[arm.name]) for arm in results.arms])

    def _start_file(self) -> Path | None:
        """Return the weights that all arms started from; None where they started from random ones."""
        if self.plan.start is not None:
            return finished_export(self.plan.start)
        files = {run.preset.train.generator.initial_file for run in self.plan.runs}
        return files.pop() if len(files) == 1 else None

    def _origin(self) -> Mapping[str, str]:
        device = best_device()
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {platform.machine()}"
        return {
            "command": self.command,
            "code": str(code()),
            "torch": version("torch"),
            "device": name,
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        }
