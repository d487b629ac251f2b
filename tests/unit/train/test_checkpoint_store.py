"""Checkpoints: whole or not at all, and a damaged one never stops a run that has another."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

import pipeline.checkpoint.store
from pipeline.checkpoint import Checkpoint, CheckpointStore, Retention, load_checkpoint
from pipeline.errors import CheckpointError, SaveError

FILES = ["facts.json", "generator.safetensors", "generator_optimizer.safetensors", "manifest.json"]


def checkpoint(images_seen: int) -> Checkpoint:
    weight = torch.arange(12.0).reshape(3, 4) + images_seen
    tensors = {
        "generator": {"weight": weight, "turned": weight.T, "counter": torch.tensor(images_seen)},
        "generator_optimizer": {"exp_avg/weight": weight * 0.5},
    }
    return Checkpoint(images_seen, tensors, {"image_manifest": "ab" * 32, "open_report": {"loss": [1.5, 3.0]}})


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    store = CheckpointStore(tmp_path / "checkpoints", Retention(newest=2))
    store.save(checkpoint(8))
    store.save(checkpoint(16))
    return store


def folder_of(store: CheckpointStore, images_seen: int) -> Path:
    return next(path for path in store.complete() if int(path.name.removeprefix("images-")) == images_seen)


def flip(path: Path, offset: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x80
    path.write_bytes(content)


def test_checkpoint_in_a_folder_whose_name_is_no_text_is_read(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / os.fsdecode(b"caf\xe9"), Retention(newest=2))
    store.save(checkpoint(8))
    found = store.newest()
    assert found is not None
    assert torch.equal(found.tensors["generator"]["weight"], checkpoint(8).tensors["generator"]["weight"])
    assert store.weights(8, "generator")["counter"] == 8


def test_checkpoint_when_saved_comes_back_to_the_bit(store: CheckpointStore) -> None:
    found, given = store.newest(), checkpoint(16)
    assert found.images_seen == 16
    assert found.facts == {**given.facts, "images_seen": 16}
    assert found.tensors.keys() == given.tensors.keys()
    for group, tensors in given.tensors.items():
        assert found.tensors[group].keys() == tensors.keys()
        assert all(torch.equal(found.tensors[group][name], tensor) for name, tensor in tensors.items())
        assert all(found.tensors[group][name].dtype == tensor.dtype for name, tensor in tensors.items())


def test_store_when_there_is_nothing_has_no_newest(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "none", Retention(newest=2)).newest() is None
    assert not (tmp_path / "none").exists()


def test_newest_is_by_number_not_by_time(store: CheckpointStore) -> None:
    os.utime(folder_of(store, 8))
    assert store.newest().images_seen == 16


def test_folder_when_its_manifest_is_missing_is_no_checkpoint(
    store: CheckpointStore, caplog: pytest.LogCaptureFixture
) -> None:
    (folder_of(store, 16) / "manifest.json").unlink()
    assert store.newest().images_seen == 8
    assert not caplog.records


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("offset", [0, -3])
def test_newest_when_a_byte_is_flipped_is_passed_over_with_a_warning_that_names_it(
    store: CheckpointStore, caplog: pytest.LogCaptureFixture, name: str, offset: int
) -> None:
    flip(folder_of(store, 16) / name, offset)
    with caplog.at_level(logging.WARNING):
        assert store.newest().images_seen == 8
    (record,) = caplog.records
    assert "skipping a damaged checkpoint" in record.getMessage()
    assert f"images-0000000016/{name}" in record.getMessage()


@pytest.mark.parametrize("name", FILES[:-1])
def test_checkpoint_when_a_file_is_gone_or_short_is_damaged(store: CheckpointStore, name: str) -> None:
    folder = folder_of(store, 16)
    file = folder / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=re.escape(name)):
        load_checkpoint(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match=re.escape(name)):
        load_checkpoint(folder)


def test_newest_when_all_are_damaged_says_so(store: CheckpointStore) -> None:
    for folder in store.complete():
        flip(folder / "generator.safetensors")
    with pytest.raises(CheckpointError, match=r"all 2 checkpoint\(s\) in .* are damaged; move the run folder away"):
        store.newest()


def test_store_when_it_holds_enough_drops_the_oldest(store: CheckpointStore) -> None:
    store.save(checkpoint(24))
    assert sorted(path.name for path in store._folder.iterdir()) == ["images-0000000016", "images-0000000024"]
    store.save(checkpoint(32))
    assert store.newest().images_seen == 32


def test_checkpoint_when_saved_again_replaces_a_damaged_one(store: CheckpointStore) -> None:
    flip(folder_of(store, 16) / "generator.safetensors")
    store.save(checkpoint(16))
    assert load_checkpoint(folder_of(store, 16)).images_seen == 16


def test_disk_when_full_costs_only_the_new_checkpoint(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = pipeline.checkpoint.store.write_atomically

    def full(path: Path, data: bytes) -> None:
        if path.name == "facts.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data)

    monkeypatch.setattr(pipeline.checkpoint.store, "write_atomically", full)
    with pytest.raises(SaveError, match=r"(?s)images-0000000024 could not be written: No space left.*untouched"):
        store.save(checkpoint(24))
    assert sorted(path.name for path in store._folder.iterdir()) == ["images-0000000008", "images-0000000016"]
    assert store.newest().images_seen == 16
    monkeypatch.undo()
    store.save(checkpoint(24))
    assert store.newest().images_seen == 24


def test_rename_when_it_fails_leaves_no_partial_folder(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise OSError(errno.EIO, "Input/output error", str(self))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(SaveError, match="Input/output error"):
        store.save(checkpoint(24))
    assert len(list(store._folder.iterdir())) == 2


def test_partial_folder_when_a_kill_left_one_is_neither_read_nor_in_the_way(store: CheckpointStore) -> None:
    shutil.copytree(folder_of(store, 16), store._folder / ".images-0000000024.partial")
    assert store.newest().images_seen == 16
    store.save(checkpoint(24))
    assert sorted(path.name for path in store._folder.iterdir()) == ["images-0000000016", "images-0000000024"]


def test_removal_when_killed_in_it_leaves_nothing_that_looks_like_a_checkpoint(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: None)
    store.save(checkpoint(24))
    monkeypatch.undo()
    visible = [path.name for path in store._folder.iterdir() if not path.name.startswith(".")]
    assert sorted(visible) == ["images-0000000016", "images-0000000024"]
    assert len(list(store._folder.iterdir())) == 3
    store.tidy(24)
    assert sorted(path.name for path in store._folder.iterdir()) == sorted(visible)


def test_tidy_finishes_a_save_that_was_killed_and_keeps_later_checkpoints(store: CheckpointStore) -> None:
    CheckpointStore(store._folder, Retention(newest=9)).save(checkpoint(24))
    CheckpointStore(store._folder, Retention(newest=9)).save(checkpoint(32))
    store.tidy(24)  # 32 is damaged, or the run would resume from it
    assert [path.name[-2:] for path in store.complete()] == ["16", "24", "32"]
    store.tidy(32)
    assert [path.name[-2:] for path in store.complete()] == ["24", "32"]


def test_tidy_when_there_is_nothing_does_nothing(tmp_path: Path) -> None:
    CheckpointStore(tmp_path / "none").tidy(0)
    assert not (tmp_path / "none").exists()


def test_checkpoint_when_it_cannot_be_removed_stays_whole_with_a_warning(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name == "images-0000000008":
            raise OSError(errno.EBUSY, "Device or resource busy", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    store.save(checkpoint(24))
    assert len(store.complete()) == 3
    assert "images-0000000008 is no longer needed, but could not be deleted: Device or resource busy" in caplog.text


def test_checkpoint_when_just_saved_is_never_the_one_dropped(store: CheckpointStore) -> None:
    flip(folder_of(store, 16) / "generator.safetensors")
    single = CheckpointStore(store._folder, Retention(newest=1))
    single.save(checkpoint(12))  # the run went on from 8 and was asked to stop at 12
    newest = single.newest()
    assert newest is not None
    assert newest.images_seen == 12
