"""Carries out the runs of a plan: each is trained and then measured, by the commands that a person would type.

A run is a process of its own: it resumes from its own checkpoints, and one that fails leaves the others alone. What is
done is found on disk, so that an interrupted experiment resumes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.plain import to_plain
from pipeline.config.schema import TrainConfig
from pipeline.experiments.measured_file import read_measured_file
from pipeline.experiments.plan import PlannedRun
from pipeline.progress import Progress
from pipeline.train.report import MetricsFile
from shards.errors import InputError
from shards.format.files import sha256_of, write_atomically
from shards.format.storage import StoragePath, as_given, open_regular, read_whole
from shards.secrets import command_without_secrets

_POLL_S = 1.0
_LAST_LINES = 12
_LAST_BYTES = 1 << 14
_MAX_SECONDS_BYTES = 100


@dataclass(frozen=True)
class Commands:
    """How a run is trained and measured: the beginnings of two command lines."""

    train: Sequence[str]
    evaluate: Sequence[str]


@dataclass(frozen=True)
class Task:
    """A run as any process, on any machine that sees the experiment's folder, carries it out.

    Attributes:
        name: Of the run.
        run_dir: Its folder.
        num_images: It trains on so many.
        train: Command that trains or resumes it.
        measure: Command that measures its export; empty for a run that is only started from.
        log: File that both write to.
        seconds: File that gets how long they took, in seconds, over all calls.
        num_threads: Of each command.
    """

    name: str
    run_dir: Path
    num_images: int
    train: Sequence[str]
    measure: Sequence[str]
    log: Path
    seconds: Path
    num_threads: int


@dataclass(frozen=True)
class Layout:
    """Where an experiment keeps what."""

    folder: Path

    @property
    def pictures(self) -> Path:
        """Pictures of the first seed: ARM/SET/NAME.png."""
        return self.folder / "pictures"

    @property
    def own_folders(self) -> list[Path]:
        """All folders of which every file is one of `jobs/compare.py`; those of runs belong to training."""
        parts = ("settings", "measured", "logs", "pictures", "study", "tracking")
        inside = (path for part in parts for path in (self.folder / part).rglob("*") if path.is_dir())
        return [*(self.folder / part for part in parts), *inside]

    def preset(self, run: PlannedRun) -> Path:
        """The run's settings, as the training job reads them."""
        return self.folder / "settings" / f"{run.name}.json"

    def measured(self, run: PlannedRun) -> Path:
        """Its metrics image by image, as `jobs/evaluate.py` writes them."""
        return self.folder / "measured" / f"{run.name}.json"

    def log(self, run: PlannedRun) -> Path:
        """What its commands said."""
        return self.folder / "logs" / f"{run.name}.log"

    def seconds(self, run: PlannedRun) -> Path:
        """How long its commands took."""
        return self.folder / "logs" / f"{run.name}.seconds"


def num_images(run: PlannedRun) -> int:
    """Return how many images a run trains on."""
    train = run.preset.train
    return train.num_steps * train.data.batch_size


def is_trained(run: PlannedRun) -> bool:
    """Return whether a run is finished, with all its images, and has its export."""
    folder = RunFolder(run.preset.train.run_dir)
    status = folder.read_status()
    is_finished = status is not None and (status.state, status.images_seen) == ("finished", num_images(run))
    return is_finished and folder.generator.is_file()


def is_measured(run: PlannedRun, layout: Layout) -> bool:
    """Return whether a finished run's export is the one that was measured, by all metrics, on all sets."""
    if not is_trained(run):
        return False
    try:
        found = read_measured_file(layout.measured(run))
    except InputError:
        return False
    report, weights = run.preset.train.report, RunFolder(run.preset.train.run_dir).generator
    has_all = found.computed | found.not_computed.keys() >= set(report.metrics)
    is_of_sets = found.sets.keys() == {folder.name for folder in report.validation_sets}
    return has_all and is_of_sets and found.weights_sha256 == sha256_of(weights)


def task_of(run: PlannedRun, layout: Layout, commands: Commands, num_threads: int, *, is_start: bool) -> Task:
    """Write a run's settings, and return what to do for it."""
    path = layout.preset(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(to_plain(run.preset), indent=1) + "\n").encode())
    report = run.preset.train.report
    measure = (
        *commands.evaluate,
        str(run.preset.train.run_dir),
        "--sets",
        *map(str, report.validation_sets),
        "--metrics",
        *report.metrics,
        "--output",
        str(layout.measured(run)),
        "--overwrite",
    )
    return Task(
        run.name,
        run.preset.train.run_dir,
        num_images(run),
        (*commands.train, str(path), *_addresses(run.preset.train)),
        () if is_start else measure,
        layout.log(run),
        layout.seconds(run),
        num_threads,
    )


def _addresses(train: TrainConfig) -> Iterator[str]:
    """Yield the flags of addresses with a password, which the settings on the disk do not have."""
    for flag, folder in (("--data.shards", train.data.shards), ("--semantics.cache", train.semantics.cache)):
        if _has_secrets(folder):
            yield from (flag, as_given(folder))
    if any(map(_has_secrets, train.data.mix)):
        yield "--data.mix"
        for folder, share in train.data.mix.items():
            yield from (as_given(folder), str(share))


def _has_secrets(folder: StoragePath) -> bool:
    return str(folder) != as_given(folder)


def carry_out(task: Task, stop: threading.Event | None = None) -> str | None:
    """Train and measure a run.

    Args:
        task: What to do.
        stop: Once set, the running command gets SIGTERM, saves and exits; None: never.

    Returns:
        Why it is not done; None if it is.
    """
    stop = stop or threading.Event()
    task.log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": str(task.num_threads)}
    start_s = time.monotonic()
    try:
        with task.log.open("ab") as log:
            for command in filter(None, (task.train, task.measure)):
                # A session of its own: Ctrl-C on this terminal is this process's to hand on, once.
                process = subprocess.Popen(
                    command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
                code = _wait(process, stop)
                if stop.is_set():
                    return "stopped"
                if code:
                    shown = command_without_secrets(command)
                    return f"`{shown}` ended with exit code {code}; {task.log} ends:\n{_tail(task.log)}"
    finally:
        _add_seconds(task.seconds, time.monotonic() - start_s)
    return None


def _wait(process: subprocess.Popen[bytes], stop: threading.Event) -> int:
    is_asked = False
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_POLL_S)
        if stop.is_set() and not is_asked:
            process.terminate()
            is_asked = True


def _tail(log: Path) -> str:
    with open_regular(log) as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LAST_BYTES))
        lines = stream.read().decode(errors="backslashreplace").splitlines()
    return "\n".join(f"    {line}" for line in lines[-_LAST_LINES:])


def _add_seconds(path: Path, seconds: float) -> None:
    write_atomically(path, f"{read_seconds(path) + seconds:.1f}\n".encode())


def read_seconds(path: Path) -> float:
    """Return how long a run has taken so far."""
    try:
        seconds = float(read_whole(path, _MAX_SECONDS_BYTES))
    except (OSError, ValueError):
        return 0.0
    return seconds if 0 <= seconds < math.inf else 0.0


def execute(tasks: Sequence[Task], num_workers: int) -> dict[str, str]:
    """Carry out tasks on this machine, several at a time, with one bar for all.

    Args:
        tasks: Those that are not done.
        num_workers: Tasks at a time.

    Returns:
        Why a task is not done, by its name.
    """
    failures: dict[str, str] = {}
    stop = threading.Event()
    total, seen = sum(task.num_images for task in tasks), sum(map(images_seen, tasks))
    with Progress("training", total, "images", start=seen) as bar, ThreadPoolExecutor(num_workers) as pool:
        names = {pool.submit(carry_out, task, stop): task.name for task in tasks}
        try:
            pending = set(names)
            while pending:
                done, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                failures |= {names[one]: failure for one in done if (failure := one.result()) is not None}
                bar.advance(sum(map(images_seen, tasks)) - bar.done)
        except BaseException:
            # Workers send SIGTERM to their commands, which save and exit; the pool waits for them.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failures


def images_seen(task: Task) -> int:
    """Return how far a run is, by its last report."""
    reports = MetricsFile(RunFolder(task.run_dir).metrics).reports()
    return reports[-1][0] if reports else 0
