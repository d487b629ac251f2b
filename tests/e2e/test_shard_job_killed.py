"""The shard job under fire: its driver, its workers and its Ray are killed at random moments, again and again."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from harness import write_shards
from shard_jobs import many_small_shards, shard_files, start_shard_job, without_ray_address

from shards.config import ShardConfig

FEW = {"worker": 2, "driver": 1, "raylet": 1, "whole ray": 1}
MANY = {"worker": 18, "driver": 6, "raylet": 5, "whole ray": 3}
SEED = 20240617
NUM_PHOTOS = 20
TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ShardConfig:
    """Many small shards: work for a minute, finished piece by piece."""
    photos = tmp_path_factory.mktemp("source") / "photos"
    return many_small_shards(photos, tmp_path_factory.mktemp("undisturbed"), NUM_PHOTOS)


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file each finished shard is: another writer would have made another."""
    names = [path.stem for path in folder.glob("images-*.json")] if folder.is_dir() else []
    files = [folder / f"{name}{suffix}" for name in names for suffix in (".tar", ".json")]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def cut(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file each photo is that was cut and still waits for its shards."""
    files = {}
    for path in folder.glob(".spool/*/*.zip"):
        with contextlib.suppress(FileNotFoundError):
            files[path.name] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return files


class Job:
    """A run of the command as a user starts it, with a Ray of its own."""

    def __init__(self, config: ShardConfig, output: Path) -> None:
        self.process = start_shard_job(config, output, without_ray_address(), subprocess.DEVNULL)
        self.output = output

    def is_running(self) -> bool:
        return self.process.poll() is None

    def tree(self, *names: str) -> list[psutil.Process]:
        """Processes below the driver whose command holds one of the names."""
        try:
            processes = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [process for process in processes if any(name in title(process) for name in names)]

    def kill(self, target: str, rng: random.Random) -> bool:
        """Kill something; False if it is not there (yet)."""
        if target == "driver":
            victims = [psutil.Process(self.process.pid)] if self.is_running() else []
        elif target == "worker":
            victims = self.tree("ray::write_shard", "ray::survey", "ray::IDLE")
            victims = victims and [rng.choice(victims)]
        elif target == "raylet":
            victims = self.tree("raylet/raylet")
        else:
            victims = self.tree("") if self.tree("raylet/raylet") else []
        return sum(killed(process) for process in victims) > 0


def title(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [process.name()])[0]
    except psutil.Error:
        return ""


def killed(process: psutil.Process) -> bool:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def wait_for_the_moment(job: Job, rng: random.Random) -> None:
    """Wait a random time at the start, or until some more photos or shards are finished and a little longer."""
    deadline_s = time.monotonic() + TIMEOUT_S
    kind = rng.random()
    if kind < 0.2:
        time.sleep(rng.uniform(0.5, 4.0))
        return
    if kind < 0.5 and not finished(job.output):
        goal = min(NUM_PHOTOS, len(cut(job.output)) + rng.randint(1, 6))
        while job.is_running() and len(cut(job.output)) < goal and not finished(job.output):
            assert time.monotonic() < deadline_s, "the job cuts nothing"
            time.sleep(0.01)
        return
    goal = len(finished(job.output)) // 2 + rng.randint(1, 12)
    while job.is_running() and len(finished(job.output)) // 2 < goal:
        assert time.monotonic() < deadline_s, "the job makes no progress"
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 0.05))


@pytest.mark.timeout(1800)  # the many take three minutes on an idle machine
@pytest.mark.parametrize("num_kills", [FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def test_job_when_killed_anywhere_ends_as_if_undisturbed(
    config: ShardConfig, tmp_path: Path, num_kills: dict[str, int]
) -> None:
    write_shards(config)
    expected = shard_files(config.output)
    rng = random.Random(SEED)
    targets = [target for target, count in num_kills.items() for _ in range(count)]
    rng.shuffle(targets)
    kept: dict[str, tuple[int, int]] = {}
    waiting: dict[str, tuple[int, int]] = {}
    rounds = 1
    output = tmp_path / "round-1"
    job = Job(config, output)
    while targets:
        wait_for_the_moment(job, rng)
        if job.kill(targets[-1], rng):
            kept |= {name: file for name, file in finished(output).items() if name not in kept}
            num_cut_again = sum(waiting.get(name, file) != file for name, file in cut(output).items())
            assert not num_cut_again, "a photo that was cut was cut again"
            waiting |= cut(output)
            if targets.pop() != "worker":
                job.process.wait(TIMEOUT_S)
        if not job.is_running():
            # No waiting for what it left running: the next run meets those that still write.
            now = finished(output)
            assert {name: now[name] for name in kept} == kept, "a finished shard was written again"
            if job.process.returncode == 0:
                assert shard_files(output) == expected
                kept, waiting, rounds = {}, {}, rounds + 1
                output = tmp_path / f"round-{rounds}"
            job = Job(config, output)
    if job.process.wait(TIMEOUT_S) != 0:
        job = Job(config, output)
        assert job.process.wait(TIMEOUT_S) == 0
    now = finished(output)
    assert {name: now[name] for name in kept} == kept, "a finished shard was written again"
    assert shard_files(output) == expected
    assert {path.name for path in output.iterdir()} == {*expected, "status.json"}
