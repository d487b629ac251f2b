"""Two machines for real: network namespaces with addresses of their own, one `accelerate launch` in each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import BIN, ROOT, job, job_environment, prepare_tiny_data, tiny_preset, write_preset

PORT = "29511"


def _ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[tuple[str, str]]]:
    """Two (namespace, address) joined by a cable; their names are of this process, so that runs do not meet."""
    names = [f"sed{os.getpid()}{side}" for side in "ab"]
    cables = [f"v{os.getpid()}{side}" for side in "ab"]
    made = _ip("netns", "add", names[0]) if os.geteuid() == 0 else None
    if made is None or made.returncode:
        reason = made.stderr.strip() if made else "not root"
        pytest.skip(f"no network namespaces here: {reason}")  # the kernel gives them to root, not in every container
    _ip("netns", "add", names[1])
    _ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
    addresses = ["10.231.7.1", "10.231.7.2"]
    for name, cable, address in zip(names, cables, addresses, strict=True):
        _ip("link", "set", cable, "netns", name)
        _ip("-n", name, "link", "set", cable, "name", "eth0")
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            assert _ip("-n", name, "link", "set", device, "up").returncode == 0
    yield list(zip(names, addresses, strict=True))
    for name in names:
        _ip("netns", "del", name)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hosts")
    prepare_tiny_data(folder)
    changes = {"schedule.total_images": 1_000_000, "report.validate_every_images": 1_000_000}
    write_preset(tiny_preset(folder, **changes), folder / "preset.json")
    (folder / "infra").symlink_to(ROOT / "infra")
    return folder


def start(hosts: list[tuple[str, str]], machine: int, data: Path) -> subprocess.Popen[bytes]:
    """The command of docs/distributed.md on one machine, with one process there."""
    config = ["--config_file", "infra/accelerate/nodes_ddp.yaml", "--num_machines", "2", "--num_processes", "2"]
    place = ["--machine_rank", str(machine), "--main_process_ip", hosts[0][1], "--main_process_port", PORT]
    command = [str(BIN / "accelerate"), "launch", *config, *place, job("train_sed.py"), "preset.json"]
    settings = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "GLOO_SOCKET_IFNAME": "eth0"}
    return subprocess.Popen(
        ["ip", "netns", "exec", hosts[machine][0], *command, "--run-dir", "run"],
        cwd=data,
        env=job_environment(data) | settings,
        stderr=(data / f"machine{machine}.log").open("wb"),
        start_new_session=True,
    )


def end_machine(name: str) -> None:
    """Take a machine down: everything in its namespace dies at once."""
    for number in _ip("netns", "pids", name).stdout.split():
        os.kill(int(number), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.distributed
def test_run_on_two_hosts_when_one_goes_down_ends_soon_and_resumes_on_one(
    hosts: list[tuple[str, str]], data: Path
) -> None:
    launchers = [start(hosts, machine, data) for machine in (0, 1)]
    saved = data / "run" / "checkpoints" / "images-0000000016" / "manifest.json"
    deadline_s = time.monotonic() + 240
    try:
        while not saved.exists():
            assert all(launcher.poll() is None for launcher in launchers), (data / "machine0.log").read_text()
            assert time.monotonic() < deadline_s, (data / "machine0.log").read_text()
            time.sleep(0.05)
        end_machine(hosts[1][0])
        start_s = time.monotonic()
        assert launchers[0].wait(120) != 0
        assert time.monotonic() - start_s < 60
    finally:
        for name, _ in hosts:
            end_machine(name)
    said = (data / "machine0.log").read_text()
    assert "DDP, 2 process(es)" in said
    assert "lost rank 1 on" in said
    assert json.loads((data / "run" / "status.json").read_text())["state"] == "failed"
    reached = [json.loads(line)["images_seen"] for line in (data / "run" / "metrics.jsonl").read_text().splitlines()]

    command = [str(BIN / "python"), job("train_sed.py"), "preset.json", "--run-dir", "run"]
    total = str(max(reached) + 40)
    alone = subprocess.run(
        ["ip", "netns", "exec", hosts[0][0], *command, "--schedule.total-images", total],
        cwd=data,
        env=job_environment(data) | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert alone.returncode == 0, alone.stderr
    assert "resuming at" in alone.stderr
    status = json.loads((data / "run" / "status.json").read_text())
    assert status["state"] == "finished"
    assert status["images_seen"] == max(reached) + 40
