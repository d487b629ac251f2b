"""A run's backup: a second place, such as an object store, that holds what another machine needs to resume the run.

Its layout is that of a run folder. A checkpoint's manifest is copied last and deleted first, so that a checkpoint in it
is complete when its manifest is there, whenever a machine vanishes. What the backup keeps is decided by the run's own
retention, not by what is in the run folder: a checkpoint that somebody deletes here stays there.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from pipeline.checkpoint.run_folder import RunFolder, refused_changes
from pipeline.checkpoint.store import MANIFEST, CheckpointStore, checkpoint_folders, checkpoints_in
from pipeline.config.presets import load_resolved
from pipeline.config.schema import Preset
from pipeline.errors import CheckpointError, ConfigError, SaveError, saving
from shards.errors import InputError
from shards.format.files import check_writable, open_atomic, write_atomically
from shards.format.storage import StoragePath, read_whole

_LOG = logging.getLogger(__name__)
_MAX_RECORD_BYTES = 1 << 30


class Backup:
    """The backup of one run. One process at a time may use it to copy.

    Args:
        place: Folder or URL.
        folder: The run's folder.
        store: The checkpoints in it, with the run's retention.
    """

    def __init__(self, place: StoragePath, folder: RunFolder, store: CheckpointStore) -> None:
        self._place = place
        self._folder = folder
        self._store = store

    def config(self) -> Preset | None:
        """Return the configuration of the run there; None where there is none.

        Raises:
            ConfigError: It has faults.
            InputError: It cannot be read.
        """
        place = self._there(self._folder.config)
        try:
            return load_resolved(place, Preset) if place.is_file() else None
        except OSError as error:
            raise self._unreadable(error) from error

    def check(self, preset: Preset) -> None:
        """Check that this run may be kept there, before anything is built or written.

        Args:
            preset: Resolved: what its run folder holds, or would hold.

        Raises:
            ConfigError: It is the run folder itself, or holds another run, or something else.
            InputError: It cannot be read or written.
        """
        if isinstance(self._place, Path) and self._place.resolve() == self._folder.path.resolve():
            raise ConfigError(f"report.backup is the run folder itself: {self._place}; give a place on other storage")
        check_writable(self._place)
        if (there := self.config()) is not None:
            if refused := refused_changes(there, preset):
                raise ConfigError(
                    f"report.backup: {self._place} holds a run with other settings:\n  "
                    + "\n  ".join(refused)
                    + "\n  Give this run another place, or resume the other one with its own settings"
                )
        elif others := self._names():
            raise ConfigError(
                f"report.backup: {self._place} holds {others[0]}, and not the {self._folder.config.name} of a run; "
                "give an empty place"
            )

    def _names(self) -> list[str]:
        there = self._place.iterdir() if self._place.is_dir() else ()
        return [path.name for path in there if not path.name.startswith(".")]  # hidden: of a copy that was cut off

    def positions(self) -> list[int]:
        """Return how many images each complete checkpoint there has seen, in order.

        Raises:
            InputError: It cannot be read.
        """
        try:
            return list(checkpoints_in(self._checkpoints))
        except OSError as error:
            raise self._unreadable(error) from error

    def restore(self) -> int | None:
        """Make the run folder, and copy what it lacks, if the backup is ahead of it.

        Returns:
            How many images the newest copied checkpoint has seen; None if the run folder needs nothing.

        Raises:
            CheckpointError: All checkpoints there are damaged.
            InputError: It cannot be read, or there is no room.
            SaveError: The run folder cannot be made.
        """
        with saving(self._folder.path):
            self._folder.path.mkdir(parents=True, exist_ok=True)
        try:
            there, here = checkpoints_in(self._checkpoints), self._store.positions()
            if not there or (here and max(here) >= max(there)):
                return None
            self._restore_records()
            # The newest one last: until it is here, the next call restores what is missing.
            for images_seen in sorted(there.keys() - set(here)):
                self._adopt(there[images_seen])
        except OSError as error:
            raise self._unreadable(error) from error
        if not self._store.positions():
            raise CheckpointError(
                f"all {len(there)} checkpoint(s) in {self._place} are damaged; to start over, give the run another "
                "report.backup"
            )
        return self._store.newest_position()

    def _adopt(self, source: StoragePath) -> None:
        try:
            self._store.adopt(source)
        except CheckpointError as error:
            _LOG.warning("skipping a damaged checkpoint of the backup: %s", error)

    def _restore_records(self) -> None:
        for path in self._folder.records:
            source = self._there(path)
            if source.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, read_whole(source, _MAX_RECORD_BYTES))

    def push(self) -> None:
        """Copy what the backup lacks, and delete the checkpoints there that are no longer retained.

        Raises:
            SaveError: Something could not be copied or deleted; the run folder has all of it.
        """
        self.add()
        try:
            self._delete_unneeded()
        except OSError as error:
            raise self._behind(error) from error

    def add(self) -> None:
        """Copy what the backup lacks.

        Raises:
            SaveError: Something could not be copied; the run folder has all of it.
        """
        try:
            # Before the checkpoints: lines after a checkpoint's position are dropped when a run resumes.
            for path in filter(Path.is_file, self._folder.records):
                self._write(self._there(path), path.read_bytes())
            for path in self._store.complete():
                self._add_checkpoint(path)
            for path in self._folder.exports:
                self._copy(path, self._there(path))
        except (OSError, InputError) as error:
            raise self._behind(error) from error

    def try_push(self) -> None:
        """Copy as `push` does; warn where that fails, since the next checkpoint brings another attempt."""
        try:
            self.push()
        except SaveError as error:
            _LOG.warning("%s", error)

    def _add_checkpoint(self, folder: Path) -> None:
        mark, manifest = self._there(folder / MANIFEST), (folder / MANIFEST).read_bytes()
        if mark.is_file():
            if mark.read_bytes() == manifest:
                return
            mark.unlink()
        for path in sorted(folder.iterdir()):
            if path.name != MANIFEST:
                self._copy(path, self._there(path))
        self._write(mark, manifest)

    def _delete_unneeded(self) -> None:
        """Delete what is not retained, and what a machine that vanished had not finished to copy or delete."""
        complete = checkpoints_in(self._checkpoints)
        passed = {seen for seen in complete if seen <= self._store.newest_position()}
        retained = complete.keys() - passed | (self._store.kept(passed) if passed else set())
        kept = {complete[seen] for seen in retained}
        for place in checkpoint_folders(self._checkpoints):
            if place in kept:
                continue
            (place / MANIFEST).unlink(missing_ok=True)
            for path in place.iterdir():
                path.unlink()
            if isinstance(place, Path):
                place.rmdir()

    @property
    def _checkpoints(self) -> StoragePath:
        return self._there(self._folder.checkpoints)

    def _there(self, path: Path) -> StoragePath:
        place = self._place
        for name in path.relative_to(self._folder.path).parts:
            place = place / name
        return place

    def _copy(self, source: Path, target: StoragePath) -> None:
        if isinstance(target, Path):
            target.parent.mkdir(parents=True, exist_ok=True)
            with source.open("rb") as stream, open_atomic(target) as copy:
                shutil.copyfileobj(stream, copy)
        else:
            with source.open("rb") as stream:
                target.publish(stream)

    def _write(self, target: StoragePath, data: bytes) -> None:
        if isinstance(target, Path):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, data)

    def _behind(self, error: Exception) -> SaveError:
        return SaveError(
            f"the backup {self._place} could not be brought up to date: {error}\n"
            f"  {self._folder.path} has all of it; rerun the same command to copy the rest"
        )

    def _unreadable(self, error: OSError) -> InputError:
        return InputError(
            f"report.backup: {self._place} cannot be copied from: {error.strerror or error}; mend that and rerun the "
            "command, or start without it: --report.backup OTHER"
        )
