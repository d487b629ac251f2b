"""Checkpoints written while training goes on: the copy, the waiting, and a disk that is full for real."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from harness import prepare_tiny_data
from sessions import assert_same_end, run_session, saved_positions

import pipeline.run.record
from pipeline.checkpoint import BackgroundWriter, Checkpoint, CheckpointStore, Retention, load_checkpoint
from pipeline.config.schema import Preset
from pipeline.errors import SaveError
from pipeline.tracking import Trackers


class GatedStore(CheckpointStore):
    """A store whose disk is as slow as the test asks."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Retention(newest=5))
        self.gate = threading.Event()

    def save(self, checkpoint: Checkpoint) -> Path:
        assert self.gate.wait(30)
        return super().save(checkpoint)


def checkpoint(images_seen: int, weight: torch.Tensor) -> Checkpoint:
    return Checkpoint(images_seen, {"generator": {"weight": weight, "turned": weight.mT}}, {})


def test_checkpoint_is_of_the_moment_of_saving_whatever_training_does_meanwhile(tmp_path: Path) -> None:
    store, weight = GatedStore(tmp_path / "checkpoints"), torch.arange(6.0).reshape(2, 3)
    writer = BackgroundWriter(store)
    with writer.closing():
        writer.save(checkpoint(8, weight))
        assert store.complete() == []
        assert writer.failure is None
        weight.add_(100)
        store.gate.set()
        writer.save(checkpoint(16, weight))  # waits for the one before
        assert store.complete()[0].name == "images-0000000008"
        weight.add_(100)
    first, second = map(load_checkpoint, store.complete())
    expected = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(first.tensors["generator"]["weight"], expected)
    assert torch.equal(first.tensors["generator"]["turned"], expected.T)
    assert torch.equal(second.tensors["generator"]["weight"], expected + 100)


def test_failure_is_known_after_the_write_and_nothing_more_is_written(tmp_path: Path) -> None:
    store = GatedStore(tmp_path / "gone" / "checkpoints")
    writer = BackgroundWriter(store)
    with writer.closing():
        writer.save(checkpoint(8, torch.ones(2, 2)))
        assert writer.failure is None
        store.gate.set()
        writer.wait()
        assert "No such file or directory" in str(writer.failure)
        (tmp_path / "gone").mkdir()
        writer.save(checkpoint(16, torch.ones(2, 2)))
    assert store.complete() == []


def test_error_of_our_own_in_the_thread_is_not_swallowed(tmp_path: Path) -> None:
    writer = BackgroundWriter(CheckpointStore(tmp_path / "checkpoints"))
    with writer.closing():
        writer.save(Checkpoint(8, {"generator": {}}, {"facts": object()}))
        with pytest.raises(TypeError, match="not JSON serializable"):
            writer.wait()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many KiB; called again, it grows. Real where this process may mount, else a limit of file sizes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    is_mounted = False

    def resize(size_kib: int) -> Path:
        nonlocal is_mounted
        options = f"size={size_kib}k" + (",remount" if is_mounted else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "sed-test", str(folder)]
        if os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            is_mounted = True
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size_kib * 1024 // 4, limits[1]))
        return folder

    yield resize
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if is_mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_disk_when_really_full_costs_only_the_new_checkpoint(small_disk: Callable[[int], Path]) -> None:
    store = CheckpointStore(small_disk(400) / "checkpoints", Retention(newest=2))
    store.save(checkpoint(8, torch.ones(100, 100)))  # 80 KiB
    with pytest.raises(SaveError, match=r"(?s)images-0000000016 could not be written: .*free some space"):
        store.save(checkpoint(16, torch.ones(300, 300)))
    (left,) = store.complete()
    assert load_checkpoint(left).images_seen == 8
    assert [path.name for path in left.parent.iterdir()] == ["images-0000000008"]
    small_disk(8000)
    store.save(checkpoint(16, torch.ones(300, 300)))
    newest = store.newest()
    assert newest is not None
    assert newest.images_seen == 16


def test_run_when_its_disk_is_full_stops_and_ends_the_same_once_there_is_room(
    small_disk: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    preset: Preset = prepare_tiny_data(tmp_path / "data")
    straight, whole = tmp_path / "straight", small_disk(32_000) / "run"
    run_session(preset, straight)
    size_kib = sum(path.stat().st_size for path in straight.glob("checkpoints/*24/*")) // 1024
    run_session(preset, whole, stop_at=8)
    small_disk(size_kib * 6 // 5)  # room for the one that is there, not for a second
    with pytest.raises(SaveError, match=r"images-0000000016 could not be written: .*(No space left|File too large)"):
        run_session(preset, whole)
    assert saved_positions(whole) == [8]
    small_disk(32_000)
    run_session(preset, whole)
    assert_same_end(whole, straight)


def test_run_when_its_disk_is_full_before_it_starts_says_so(small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    run = small_disk(4) / "run"
    with contextlib.suppress(OSError):
        (run.parent / "filling").write_bytes(bytes(8192))
    with pytest.raises(SaveError, match=r"(?s)run/\S+ could not be written: (No space left|File too large).*free some"):
        run_session(prepare_tiny_data(tmp_path / "data"), run)


@pytest.mark.parametrize("blocked", ["pictures", "export"])
def test_run_when_its_export_cannot_be_written_says_so_and_resumes_later(
    blocked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    preset: Preset = prepare_tiny_data(tmp_path / "data")
    whole = tmp_path / "run"
    run_session(preset, whole, stop_at=8)
    shutil.rmtree(whole / blocked, ignore_errors=True)
    (whole / blocked).write_text("a file where a folder should be")
    with pytest.raises(SaveError, match=rf"{blocked}.* could not be written: (File exists|Not a directory)"):
        run_session(preset, whole)
    (whole / blocked).unlink()
    outcome, _ = run_session(preset, whole)
    assert outcome.is_finished
    assert (whole / blocked).is_dir()
