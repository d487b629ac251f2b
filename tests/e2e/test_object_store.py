"""The jobs on shards in an object store: a real S3 server on loopback, a real Ray, a real kill."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from harness import ROOT, write_photos, write_shards

import jobs.ray_tasks
import jobs.shard
import jobs.verify
from jobs.ray_tasks import ray_session
from jobs.terminal import run_job
from shards.config import ShardConfig
from shards.format.manifest import read_manifest
from shards.format.remote import RemotePath


@pytest.fixture
def config(tmp_path: Path) -> ShardConfig:
    photos = write_photos(tmp_path / "photos", [(150 + number, 171) for number in range(8)])
    return ShardConfig((photos,), tmp_path / "local", "classical", 4, 64, 32, 2, 3, 0.03)


@pytest.fixture
def one_ray(object_store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One Ray for all calls of the jobs in this process, begun when its workers can find the store."""
    with ray_session(num_cpus=2) as session:
        monkeypatch.setattr(jobs.ray_tasks, "ray_session", lambda: contextlib.nullcontext(session))
        yield


def arguments(config: ShardConfig) -> list[str]:
    plain = {
        "--source": config.source[0],
        "--output": config.output,
        "--degradation": config.degradation,
        "--sub-image-px": config.sub_image_px,
        "--stride-px": config.stride_px,
        "--variants": config.variants,
        "--seed": config.seed,
        "--shard-size-mib": config.shard_size_mib,
    }
    return [str(word) for flag in plain.items() for word in flag] + ["--exclude"]


def objects(folder: RemotePath) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "status.json"}


def puts(folder: RemotePath) -> dict[str, object]:
    """When each object was put."""
    store, key = fsspec.url_to_fs(folder.url, use_listings_cache=False)
    return {info["name"].rpartition("/")[2]: info["LastModified"] for info in store.ls(key, detail=True)}


def kill_after_some_shards(config: ShardConfig, folder: RemotePath) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "jobs/shard.py", *arguments(config)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 90
    while len(list(folder.glob("images-*.json"))) < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_shards_in_a_store_when_killed_and_run_again_are_those_of_a_folder(
    bucket: str, one_ray: None, config: ShardConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    write_shards(config)
    expected = {path.name: path.read_bytes() for path in Path(str(config.output)).iterdir()}
    folder = RemotePath(f"{bucket}/deep/shards #1 + 50%")
    there = dataclasses.replace(config, output=folder)
    kill_after_some_shards(there, folder)
    finished = {path.stem for path in folder.glob("images-*.json")}
    before = puts(folder)
    assert not (folder / "manifest.json").exists()
    assert run_job(jobs.shard.main, arguments(there)) == 0
    assert "reusing" in capfd.readouterr().err
    assert objects(folder) == expected
    after = puts(folder)
    assert all(after[f"{name}.tar"] == before[f"{name}.tar"] for name in finished)
    assert run_job(jobs.verify.main, [str(folder)]) == 0

    tar = folder / "images-000001.tar"
    store, key = fsspec.url_to_fs(tar.url)
    store.pipe_file(key, expected[tar.name][:-1])
    (folder / "images-000002.tar").unlink()
    capfd.readouterr()
    assert run_job(jobs.verify.main, [str(folder)]) == 1
    assert "images-000001.tar: has" in capfd.readouterr().out
    assert run_job(jobs.verify.main, [str(folder), "--repair", str(config.source[0])]) == 0
    assert objects(folder) == expected
    assert read_manifest(folder).num_samples == read_manifest(config.output).num_samples


def test_job_when_the_bucket_is_missing_says_so_before_any_work(
    object_store: str, config: ShardConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    there = dataclasses.replace(config, output=RemotePath("s3://nobody-made-this/x"))
    assert run_job(jobs.shard.main, arguments(there)) == 2
    message = capfd.readouterr().err
    assert message.startswith("error: s3://nobody-made-this/x cannot be used: The specified bucket does not exist")
    assert "Traceback" not in message
