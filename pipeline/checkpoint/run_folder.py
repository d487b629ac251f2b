"""The layout of a run folder, and the check that a command may resume the run in it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pipeline.checkpoint.facts import MlflowRunId
from pipeline.config.plain import to_plain
from pipeline.config.presets import LAUNCH_TABLE, load_resolved
from pipeline.config.schema import Preset
from pipeline.errors import ConfigError, saving
from shards.format.documents import read_document
from shards.format.files import check_writable, clean_stale_kind, write_atomically
from shards.schema import Count, SchemaError

FREE_TO_CHANGE = (
    "train.run_dir",
    "train.data.num_workers",
    "train.data.shards",
    "train.data.mix",
    "train.data.max_bad_fraction",
    "train.data.cache_",
    "train.semantics.cache",
    "train.schedule.total_images",
    "train.schedule.max_skipped_updates",
    "train.schedule.stop_after_no_improvement_images",
    "train.runtime.compile",
    "train.runtime.micro_batch_size",
    "train.runtime.timeout_s",
    "train.report.",
    "shards.",
)
"""Settings that may change when a run resumes, because they do not affect what was trained so far. Shards and features
may have moved: their manifests, and the shares of a mix, are identified by hash."""


_MAX_STATUS_BYTES = 1 << 16

RunState = Literal["running", "preempted", "finished", "failed"]
"""running: also after a kill; preempted: saved and exited on request."""


@dataclass(frozen=True)
class RunStatus:
    """What `status.json` says: how the last call ended and where, and its run in MLflow."""

    state: RunState
    images_seen: Count
    total_images: Count
    mlflow_run_id: MlflowRunId | None = None


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration; usable as a preset."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """One JSON line per report."""
        return self.path / "metrics.jsonl"

    @property
    def machine(self) -> Path:
        """One JSON line per report: when it was, speed, memory and load."""
        return self.path / "machine.jsonl"

    @property
    def tracking(self) -> Path:
        """Folder of the run's description, and of what each tracker knows or has not received yet."""
        return self.path / "tracking"

    @property
    def mlflow(self) -> Path:
        """Folder of the run's ID in MLflow, and of what MLflow has not received yet."""
        return self.tracking / "mlflow"

    @property
    def status(self) -> Path:
        """How the last call ended, for schedulers: a launcher exits with 1 whether the run was preempted or failed."""
        return self.path / "status.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def generator(self) -> Path:
        """Exported weights of the averaged generator."""
        return self.path / "export" / "generator.safetensors"

    @property
    def best_generator(self) -> Path:
        """Exported weights of the averaged generator at the best validation, by `report.keep_best`."""
        return self.path / "export" / "generator_best.safetensors"

    def discriminator(self, name: str = "discriminator") -> Path:
        """Exported weights of a discriminator, by default of the first."""
        return self.path / "export" / f"{name}.safetensors"

    @property
    def pictures(self) -> Path:
        """Pictures of the last validation."""
        return self.path / "pictures"

    @property
    def records(self) -> list[Path]:
        """The files beside its checkpoints that a run resumes with; some may not be there yet.

        The last one is the run's ID in MLflow, kept by `pipeline.tracking.mlflow_run`.
        """
        return [self.config, self.metrics, self.machine, self.status, self.mlflow / "run_id"]

    @property
    def exports(self) -> list[Path]:
        """The exported weights that are there."""
        return sorted(self.generator.parent.glob("*.safetensors"))

    @property
    def skipped_updates(self) -> Path:
        """Folder of what is known about updates that were skipped."""
        return self.path / "skipped_updates"

    def check(self, preset: Preset) -> None:
        """Check that a command may train here, before anything is built or written.

        Raises:
            ConfigError: The folder belongs to a run with other settings, which are listed with both values, or holds
                files that a run would replace and none has written.
            InputError: The folder cannot be written.
        """
        check_writable(self.path)
        if not self.config.is_file():
            self._check_unclaimed(preset)
        elif refused := refused_changes(self.read_config(), preset):
            raise ConfigError(
                f"{self.path} holds a run with other settings:\n  "
                + "\n  ".join(refused)
                + f"\n  Resume with its own: jobs/train_sed.py {self.path}; or start a new run: --run-dir OTHER"
            )

    def _check_unclaimed(self, preset: Preset) -> None:
        """A run begins with its configuration: without one, what lies where it would write is somebody's."""
        discriminators = map(self.discriminator, preset.train.discriminators)
        ours = (self.metrics, self.machine, self.status, self.generator, self.best_generator, *discriminators)
        if found := [str(path.relative_to(self.path)) for path in ours if os.path.lexists(path)]:
            raise ConfigError(
                f"{self.path} holds {', '.join(found)}, which a run would replace, and not the {self.config.name} of a "
                "run; start the run with another --run-dir, or put back the file of the run that was here"
            )

    def lock(self) -> BinaryIO | None:
        """Create the folder and lock it for this process; None if another process holds the lock.

        The lock is released when the returned file is closed or the process ends; loader processes do not inherit it.
        On storage without locks every process gets it.

        Raises:
            SaveError: The folder cannot be made, or nothing can be written in it.
        """
        with saving(self.path / ".lock"):
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("wb")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in {errno.EACCES, errno.EAGAIN}:
                file.close()
                return None
        return file

    def clean(self) -> None:
        """Remove the temporary files that killed calls left; only the holder of the lock may call this."""
        for folder in (self.path, self.generator.parent, self.pictures, self.skipped_updates):
            clean_stale_kind(folder, "")

    def read_config(self) -> Preset:
        """Return the configuration of the run here.

        Raises:
            ConfigError: There is none, or it has faults.
        """
        return load_resolved(self.config, Preset)

    def write_config(self, preset: Preset, launch: Mapping[str, Any] | None = None) -> None:
        """Write the resolved configuration, and what the launcher and the environment decided beside it.

        Raises:
            SaveError: The disk is full.
        """
        document = to_plain(preset) | ({LAUNCH_TABLE: dict(launch)} if launch else {})
        with saving(self.config):
            write_atomically(self.config, (json.dumps(document, indent=1) + "\n").encode())

    def read_status(self) -> RunStatus | None:
        """Return what `status.json` says; None where there is none, or a damaged one: no run stops for that."""
        try:
            return read_document(self.status, RunStatus, _MAX_STATUS_BYTES)
        except (OSError, SchemaError):
            return None

    def write_status(self, status: RunStatus) -> None:
        """Write `status.json`.

        Raises:
            SaveError: The disk is full, or the folder is gone.
        """
        with saving(self.status):
            write_atomically(self.status, (json.dumps(asdict(status)) + "\n").encode())


def refused_changes(run: Preset, preset: Preset) -> list[str]:
    """Return a line for each setting that differs from those that a run began with, and may not change."""
    differing = differences(to_plain(run), to_plain(preset))
    return [line for path, line in differing.items() if not path.startswith(_free_to_change(preset))]


def _free_to_change(preset: Preset) -> tuple[str, ...]:
    """Return the settings that may change; the length of the run not under a cosine, which all of it hangs on."""
    is_cosine = preset.train.schedule.learning_rate_decay == "cosine"
    return tuple(name for name in FREE_TO_CHANGE if not (is_cosine and name == "train.schedule.total_images"))


def differences(old: Any, new: Any, path: str = "") -> dict[str, str]:
    """Return dotted path to a line "path: old -> new" for every leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, str] = {}
        for key in sorted(old.keys() | new.keys()):
            found |= differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        return found
    return {} if _plain(old) == _plain(new) else {path: f"{path}: the run has {old!r}, the command says {new!r}"}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
