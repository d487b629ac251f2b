"""A cluster of three machines on one: `ray start` as docs/cluster.md has it, losing a node, then the head."""

from __future__ import annotations

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import BIN, write_shards
from shard_jobs import many_small_shards, shard_files, start_shard_job, without_ray_address

from shards.config import ShardConfig

NUM_PHOTOS = 16
TIMEOUT_S = 120.0


class Cluster:
    """Nodes of `ray start`, each with one CPU, in one temporary folder."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.address = f"127.0.0.1:{server.getsockname()[1]}"
        self._folder = folder
        self._nodes: list[list[psutil.Process]] = []
        self.environment = without_ray_address()

    def start_head(self) -> None:
        """Start the head, at the address that it has had before."""
        port = self.address.rpartition(":")[2]
        self._start("--head", "--port", port, "--include-dashboard=false", "--temp-dir", str(self._folder))

    def start_node(self) -> None:
        """Start a further node."""
        self._start("--address", self.address)

    def kill_node(self, number: int) -> None:
        """Kill every process of a node at once, as a power cut does; the head is the first."""
        for process in self._nodes.pop(number):
            for victim in [*children(process), process]:
                kill(victim)

    def stop(self) -> None:
        """Kill what is left."""
        while self._nodes:
            self.kill_node(-1)

    def _start(self, *options: str) -> None:
        before = {process.pid for process in self._processes()}
        command = [str(BIN / "ray"), "start", *options, "--num-cpus", "1", "--object-store-memory", str(100 * 2**20)]
        started = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert started.returncode == 0, started.stderr + started.stdout
        self._nodes.append([process for process in self._processes() if process.pid not in before])

    def _processes(self) -> list[psutil.Process]:
        """Every process that has this cluster's folder in its command."""
        processes = psutil.process_iter(["cmdline"])
        return [process for process in processes if str(self._folder) in " ".join(process.info["cmdline"] or [])]


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    # Not pytest's folder: the names of Ray's sockets below it may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(Path(folder))
        cluster.start_head()
        cluster.start_node()
        cluster.start_node()
        yield cluster
        cluster.stop()


@pytest.fixture
def config(tmp_path: Path) -> ShardConfig:
    return many_small_shards(tmp_path / "photos", tmp_path / "expected", NUM_PHOTOS)


def start_job(config: ShardConfig, output: Path, cluster: Cluster) -> subprocess.Popen[str]:
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}
    return start_shard_job(config, output, environment, subprocess.PIPE)


def wait_for_shards(output: Path, number: int, job: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while len(list(output.glob("images-*.json"))) < number:
        assert job.poll() is None, "the job ended before anything could be killed"
        assert time.monotonic() < deadline_s, "the job writes no shards"
        time.sleep(0.01)


@pytest.mark.slow
def test_shards_when_a_node_then_the_head_is_lost_are_the_bytes_of_one_process(
    cluster: Cluster, config: ShardConfig, tmp_path: Path
) -> None:
    write_shards(config)
    expected = shard_files(tmp_path / "expected")

    output = tmp_path / "node-lost"
    job = start_job(config, output, cluster)
    wait_for_shards(output, 2, job)
    cluster.kill_node(2)
    assert job.wait(TIMEOUT_S) == 0
    assert shard_files(output) == expected

    output = tmp_path / "head-lost"
    job = start_job(config, output, cluster)
    wait_for_shards(output, 2, job)
    cluster.kill_node(0)
    _, messages = job.communicate(timeout=TIMEOUT_S)
    assert job.returncode not in {0, 2}
    assert "Traceback" not in messages, messages
    assert "rerun the same command" in messages, messages
    finished = [path.with_suffix(".tar") for path in output.glob("images-*.json")]  # a tar alone is written again
    kept = {path.name: path.stat().st_mtime_ns for path in finished}
    assert 0 < len(kept) < sum(name.endswith(".tar") for name in expected)

    cluster.stop()
    cluster.start_head()
    assert start_job(config, output, cluster).wait(TIMEOUT_S) == 0
    assert shard_files(output) == expected
    assert {name: (output / name).stat().st_mtime_ns for name in kept} == kept, "a finished shard was written again"
