"""A run's backup: another machine resumes from it, whenever this one vanished, and nobody's files are lost in it."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import changed, tiny_preset
from test_checkpoint_store import checkpoint, flip

from pipeline.checkpoint import CheckpointStore, Retention
from pipeline.checkpoint.backup import Backup
from pipeline.checkpoint.run_folder import RunFolder, RunStatus
from pipeline.config.schema import Preset
from pipeline.errors import CheckpointError, ConfigError, SaveError
from pipeline.run.backup import restore_backup
from pipeline.runtime.backend import Backend
from shards.errors import InputError
from shards.format.remote import RemotePath
from shards.format.storage import StoragePath

KEPT = Retention(newest=2)


class Machine:
    """A run folder of the tiny preset on a machine of its own, and the backup as it sees it."""

    def __init__(self, root: Path, place: StoragePath, preset: Preset) -> None:
        self.folder = RunFolder(root / "run")
        self.store = CheckpointStore(self.folder.checkpoints, KEPT)
        self.backup = Backup(place, self.folder, self.store)
        self.preset = changed(preset, run_dir=self.folder.path)

    def train(self, *positions: int) -> Machine:
        """Write what a run has written when it has come to the last of these positions."""
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.folder.write_config(self.preset)
        self.folder.write_status(RunStatus("running", positions[-1], 1000, "abc"))
        for position in positions:
            with self.folder.metrics.open("a") as lines:
                lines.write(f'{{"images_seen": {position}}}\n')
            self.store.save(checkpoint(position))
        return self

    @property
    def files(self) -> dict[str, bytes]:
        """Every file of the run folder."""
        root = self.folder.path
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


MachineOf = Callable[[str], Machine]


@pytest.fixture(params=["folder", "store"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StoragePath:
    """An empty place for a backup."""
    if request.param == "folder":
        return tmp_path / "elsewhere" / "backup"
    return RemotePath(f"{request.getfixturevalue('bucket')}/runs/one")


@pytest.fixture
def machine_of(tmp_path: Path, place: StoragePath) -> MachineOf:
    """Build a machine by its name."""
    preset = tiny_preset(tmp_path)
    return lambda name: Machine(tmp_path / name, place, preset)


def positions_in(place: StoragePath) -> list[int]:
    return sorted(int(path.name.removeprefix("images-")) for path in (place / "checkpoints").iterdir())


def test_another_machine_when_it_has_nothing_gets_the_whole_run(machine_of: MachineOf) -> None:
    first, second = machine_of("a").train(8, 16), machine_of("b")
    first.backup.check(first.preset)
    first.backup.push()
    second.backup.check(second.preset)
    assert second.backup.restore() == 16
    assert second.files == first.files
    assert second.backup.restore() is None


def test_backup_when_the_run_goes_on_keeps_what_the_run_keeps(machine_of: MachineOf, place: StoragePath) -> None:
    first = machine_of("a").train(8, 16)
    first.backup.push()
    first.train(24, 32)
    first.backup.push()
    assert positions_in(place) == [24, 32]
    shutil.rmtree(first.folder.checkpoints / "images-0000000024")  # by its user, who frees the disk
    first.backup.push()
    assert positions_in(place) == [24, 32]
    second = machine_of("b")
    assert second.backup.restore() == 32
    assert second.store.positions() == [24, 32]


def test_run_folder_when_it_is_ahead_stays_and_the_backup_follows(machine_of: MachineOf, place: StoragePath) -> None:
    first = machine_of("a").train(8)
    first.backup.push()
    first.train(16)
    before = first.files
    assert first.backup.restore() is None
    assert first.files == before
    first.backup.add()
    assert positions_in(place) == [8, 16]


def test_checkpoint_when_it_was_saved_anew_replaces_the_one_there(machine_of: MachineOf) -> None:
    first, second = machine_of("a").train(8), machine_of("b")
    first.backup.push()
    shutil.rmtree(first.folder.checkpoints)
    other = checkpoint(8)
    first.store.save(dataclasses.replace(other, facts={**other.facts, "open_report": {"loss": [2.5, 3.0]}}))
    first.backup.push()
    assert second.backup.restore() == 8
    assert second.store.newest().facts["open_report"] == {"loss": [2.5, 3.0]}


def test_damaged_checkpoint_of_the_backup_is_passed_over(
    machine_of: MachineOf, place: StoragePath, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = machine_of("a").train(8, 16), machine_of("b")
    first.backup.push()
    spoil(place / "checkpoints" / "images-0000000016" / "generator.safetensors")
    with caplog.at_level(logging.WARNING):
        assert second.backup.restore() == 8
    assert "images-0000000016 is damaged" in caplog.text
    spoil(place / "checkpoints" / "images-0000000008" / "facts.json")
    with pytest.raises(CheckpointError, match="all 2 checkpoint"):
        machine_of("c").backup.restore()


def spoil(path: StoragePath) -> None:
    if isinstance(path, Path):
        flip(path)
        return
    content = bytearray(path.read_bytes())
    path.unlink()
    store = path.url.removeprefix("s3://")
    content[-1] ^= 0x80
    import s3fs

    s3fs.S3FileSystem().pipe_file(store, bytes(content))


def test_place_of_something_else_is_refused_and_left_alone(machine_of: MachineOf, place: StoragePath) -> None:
    first = machine_of("a").train(8)
    first.backup.push()
    other = changed(first.preset, seed=first.preset.train.seed + 1)
    with pytest.raises(ConfigError, match=r"report\.backup.*other settings:\n  train\.seed"):
        machine_of("b").backup.check(other)
    first.backup.check(changed(first.preset, run_dir=Path("moved")))
    config = place / "config.json"
    config.unlink()
    with pytest.raises(ConfigError, match=r"holds \S+, and not the config\.json"):
        first.backup.check(first.preset)
    with pytest.raises(ConfigError, match="the run folder itself"):
        Backup(first.folder.path, first.folder, first.store).check(first.preset)


def test_run_folder_of_another_run_is_refused_and_left_alone(machine_of: MachineOf, place: StoragePath) -> None:
    first, second = machine_of("a").train(8), machine_of("b")
    first.backup.push()
    second.preset = changed(second.preset, seed=first.preset.train.seed + 1)
    second.train(4)
    before = second.files
    report = dataclasses.replace(first.preset.train.report, backup=place)
    preset = changed(first.preset, run_dir=second.folder.path, report=report)
    backend = Backend(preset.train.runtime, batch_size=preset.train.data.batch_size)
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        restore_backup(preset, backend)
    assert second.files == before


def test_machine_that_vanishes_at_any_moment_leaves_a_backup_to_resume_from(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = tiny_preset(tmp_path)
    num_writes = moments = 0
    while num_writes == moments:
        moments += 1
        place = RemotePath(f"{bucket}/{moments}")
        first = Machine(tmp_path / f"a{moments}", place, preset).train(8, 16)
        first.backup.push()
        first.train(24)
        with monkeypatch.context() as patch:
            num_writes = die_at(moments, patch, first.backup.push)
        second = Machine(tmp_path / f"b{moments}", place, preset)
        second.backup.check(second.preset)
        newest = second.backup.restore()
        assert newest in {16, 24}
        found, expected = second.store.newest(), checkpoint(newest)
        assert torch.equal(found.tensors["generator"]["weight"], expected.tensors["generator"]["weight"])
        second.store.save(checkpoint(24))
        second.backup.push()
        assert positions_in(place) == [16, 24]
    assert moments > 10


class VanishedError(BaseException):
    """The machine is gone."""


def die_at(moment: int, patch: pytest.MonkeyPatch, act: Callable[[], None]) -> int:
    """Let the machine vanish before its n-th write to the store; return how many were begun."""
    begun = 0

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal begun
            begun += 1
            if begun == moment:
                raise VanishedError
            return method(*args, **options)

        return call

    for name in ("publish", "unlink"):
        patch.setattr(RemotePath, name, counted(getattr(RemotePath, name)))
    try:
        act()
    except VanishedError:
        return begun
    return begun


def test_store_that_refuses_is_named_and_copying_beside_training_warns(
    tmp_path: Path, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    missing = Machine(tmp_path / "a", RemotePath(f"{bucket}-missing/run"), tiny_preset(tmp_path)).train(8)
    with pytest.raises(InputError, match="bucket must exist"):
        missing.backup.check(missing.preset)
    with pytest.raises(InputError, match=f"{bucket}-missing/run/checkpoints cannot be used: .*create it"):
        missing.backup.restore()
    with pytest.raises(SaveError, match="has all of it; rerun the same command"):
        missing.backup.push()
    with caplog.at_level(logging.WARNING):
        missing.backup.try_push()
    assert "could not be brought up to date" in caplog.text
