"""A run whose machine vanishes is resumed on another one, from its backup in an object store alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from faulty_proxy import Fault, ResetAfter, Respond, Wait, faulty_proxy
from harness import BIN, ROOT, assert_bad_input, job, job_environment, prepare_tiny_data, run_command, write_preset
from sessions import assert_same_end

from shards.format.remote import RemotePath

MORE_IMAGES = 16
FAULTS: tuple[Fault, ...] = (
    Respond("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    ResetAfter(200),
    Wait(0.1),
)


@pytest.mark.slow
@pytest.mark.distributed
def test_run_whose_machine_vanishes_ends_elsewhere_as_if_it_had_not(tmp_path: Path, bucket: str) -> None:
    preset = prepare_tiny_data(tmp_path)
    write_preset(preset, tmp_path / "preset.json")
    place = RemotePath(f"{bucket}/runs/one")
    command = ["python", job("train_sed.py"), str(tmp_path / "preset.json"), "--report.backup", place.url]

    def disturb(number: int) -> Fault | None:
        return None if number % 4 else FAULTS[number // 4 % len(FAULTS)]

    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"], disturb) as proxy:
        first = subprocess.Popen(
            [str(BIN / "python"), *command[1:], "--run-dir", "a", "--schedule.total-images", "1000000"],
            cwd=tmp_path,
            env=job_environment(tmp_path) | {"AWS_ENDPOINT_URL": proxy.url},
            stderr=(tmp_path / "first.log").open("wb"),
            start_new_session=True,
        )
        wait_for(place / "checkpoints" / "images-0000000016" / "manifest.json", first, tmp_path / "first.log")
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        assert proxy.num_faults
    shutil.rmtree(tmp_path / "a")

    reached = max(int(path.name.removeprefix("images-")) for path in (place / "checkpoints").iterdir())
    total = ["--schedule.total-images", str(reached + MORE_IMAGES)]
    planned = run_command([*command, "--run-dir", "b", *total, "--dry-run"], tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert f"backup           {place}: " in planned.stdout
    second = run_command([*command, "--run-dir", "b", *total], tmp_path)
    assert second.returncode == 0, second.stderr
    assert "resuming at" in second.stderr
    straight = ["python", job("train_sed.py"), str(tmp_path / "preset.json"), "--run-dir", "c", *total]
    done = run_command(straight, tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_end(tmp_path / "b", tmp_path / "c")
    kept = {path.name for path in (tmp_path / "b" / "checkpoints").iterdir()}
    assert {path.name for path in (place / "checkpoints").iterdir()} == kept
    exported = (place / "export" / "generator.safetensors").read_bytes()
    assert exported == (tmp_path / "b" / "export" / "generator.safetensors").read_bytes()
    status = json.loads((place / "status.json").read_bytes())
    assert status["state"] == "finished"
    assert (place / "tracking" / "mlflow" / "run_id").read_bytes().decode().strip() == status["mlflow_run_id"]
    again = run_command([*command, "--run-dir", "b", *total], tmp_path)
    assert again.returncode == 0, again.stderr
    other = run_command([*command, "--run-dir", "d", "--seed", "9"], tmp_path)
    assert_bad_input(other, "report.backup", "holds a run with other settings", "train.seed")
    assert not (tmp_path / "d").exists()


def wait_for(path: RemotePath, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an object is there."""
    deadline_s = time.monotonic() + 240
    while not path.is_file():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.distributed
def test_two_machines_without_common_storage_share_a_run_by_its_backup(
    tmp_path: Path, bucket: str, closed_port: int
) -> None:
    preset = prepare_tiny_data(tmp_path)
    write_preset(preset, tmp_path / "preset.json")
    place = RemotePath(f"{bucket}/runs/two")
    config = ["--config_file", str(ROOT / "infra" / "accelerate" / "nodes_ddp.yaml"), "--num_machines", "2"]
    config += ["--num_processes", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", str(closed_port)]

    def launch(machine: int, total_images: int) -> subprocess.Popen[bytes]:
        home = tmp_path / f"machine{machine}"
        home.mkdir(exist_ok=True)
        training = [job("train_sed.py"), str(tmp_path / "preset.json"), "--report.backup", place.url]
        training += ["--schedule.total-images", str(total_images), "--run-dir", "run"]
        return subprocess.Popen(
            [str(BIN / "accelerate"), "launch", *config, "--machine_rank", str(machine), *training],
            cwd=home,
            env=job_environment(home) | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"},
            stdout=(home / "log").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    for total_images in (16, 32):
        machines = [launch(machine, total_images) for machine in (0, 1)]
        codes = [machine.wait(240) for machine in machines]
        assert codes == [0, 0], [(tmp_path / f"machine{number}" / "log").read_text()[-3000:] for number in (0, 1)]
    # The second machine never saves: what it resumed from is the backup's.
    assert (tmp_path / "machine1" / "run" / "checkpoints" / "images-0000000016").is_dir()
    assert json.loads((place / "status.json").read_bytes())["images_seen"] == 32
