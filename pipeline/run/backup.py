"""A run's backup as its ranks use it: restored on every machine at the start, brought up to date by the leader."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.checkpoint import CheckpointStore
from pipeline.checkpoint.backup import Backup
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import Preset, TrainConfig
from pipeline.errors import RunStoppedError, SaveError
from pipeline.runtime.backend import Backend
from shards.errors import InputError


def backup_of(config: TrainConfig, store: CheckpointStore | None = None) -> Backup | None:
    """Return a run's backup; None where its configuration names no place.

    Args:
        config: The run's configuration.
        store: Its checkpoints, with its retention; without it the backup cannot tell what to delete.
    """
    folder, place = RunFolder(config.run_dir), config.report.backup
    return None if place is None else Backup(place, folder, store or CheckpointStore(folder.checkpoints))


def restore_backup(preset: Preset, backend: Backend) -> None:
    """Bring the run folder of every machine to the newest checkpoint of any. All ranks must call.

    Raises:
        InputError: The backup or a run folder is another run's, or cannot be used.
        SaveError: It cannot be brought up to the leader's run folder.
    """
    backup, folder = backup_of(preset.train), RunFolder(preset.train.run_dir)
    if backup is None:
        return

    def restore() -> int | None:
        folder.check(preset)  # before anything in it is replaced
        return backup.restore()

    def bring_up_to_date() -> None:
        backup.check(preset)
        if restore() is None:
            backup.add()  # it may have missed the last checkpoint, which the other machines are about to look for

    _on_some(backend.is_leader, bring_up_to_date, backend)
    _on_some(backend.is_local_leader and not backend.is_leader, restore, backend)


class BackupUpdates:
    """Keeps a run's backup up to date; of a run without one all methods do nothing.

    Args:
        config: The run's configuration.
        store: Its checkpoints, with its retention.
        backend: Its ranks.
    """

    def __init__(self, config: TrainConfig, store: CheckpointStore, backend: Backend) -> None:
        self._backup = backup_of(config, store)
        self._backend = backend

    def update(self) -> None:
        """Copy what is new, from the leader; a warning says what fails, since another attempt follows."""
        if self._backup is not None and self._backend.is_leader:
            self._backup.try_push()

    def finish(self) -> None:
        """Copy what is new for the last time. All ranks must call.

        Raises:
            SaveError: Something could not be copied; every rank raises it.
        """
        if self._backup is not None:
            _on_some(self._backend.is_leader, self._backup.push, self._backend)


def _on_some(is_mine: bool, act: Callable[[], object], backend: Backend) -> None:
    """Act on some ranks while the others wait; where one fails, all raise."""
    failure: InputError | SaveError | None = None
    try:
        if is_mine:
            act()
    except (InputError, SaveError) as error:
        failure = error
    if backend.any_rank(failure is not None):
        raise failure or RunStoppedError("the backup failed on another machine; its message says why")
