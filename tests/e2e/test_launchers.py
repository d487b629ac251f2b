"""Asked to stop through the launcher's own process, and restarted by it: what the run saves and says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from harness import BIN, ROOT, job, job_environment, prepare_tiny_data, tiny_preset, write_preset

TWO = ["--config_file", "infra/accelerate/cpu_2.yaml"]
ONE_CPU = ["--config_file", "infra/accelerate/cpu_1.yaml"]
# What is for GPUs starts on a CPU as well, over gloo, with as many processes as there are cores here.
ONE_GPU = ["--config_file", "infra/accelerate/gpu_1.yaml"]
NODE = ["--config_file", "infra/accelerate/node.yaml", "--num_processes", "2"]
ZERO_2 = ["--config_file", "infra/accelerate/nodes_zero2.yaml", "--num_machines", "1", "--num_processes", "2"]
ZERO_2 += ["--main_process_ip", "127.0.0.1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launchers")
    prepare_tiny_data(folder)
    preset = tiny_preset(folder, **{"schedule.total_images": 1_000_000, "report.validate_every_images": 1_000_000})
    write_preset(preset, folder / "preset.json")
    (folder / "infra").symlink_to(ROOT / "infra")
    return folder


def launch(data: Path, run: str, *options: str, flags: tuple[str, ...] = (), **more: str) -> subprocess.Popen[bytes]:
    """Start `accelerate launch` as a user does, in a session of its own; its output goes to RUN.log."""
    command = [str(BIN / "accelerate"), "launch", *options, job("train_sed.py"), "preset.json", "--run-dir", run]
    return subprocess.Popen(
        [*command, *flags],
        cwd=data,
        env=job_environment(data) | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"} | more,
        stderr=(data / f"{run}.log").open("ab"),
        start_new_session=True,
    )


def wait_until(
    holds: Callable[[], bool], launcher: subprocess.Popen[bytes], log: Path, timeout_s: float = 180.0
) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert launcher.poll() is None, log.read_text()
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.02)


def training_processes(run: Path) -> list[int]:
    """Process numbers of those that train in a run folder; launchers are none."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            is_here = words and (entry / "cwd").resolve() == run.parent.resolve()
        except OSError:
            continue
        is_job = any(word.endswith(b"jobs/train_sed.py") for word in words) and b"launch" not in words
        if is_here and is_job and run.name.encode() in words:
            found.append(int(entry.name))
    return found


def status(run: Path) -> dict[str, object]:
    return json.loads((run / "status.json").read_text())


def position(run: Path) -> dict[str, object]:
    """What the status says, the number of the run in MLflow aside."""
    return {name: value for name, value in status(run).items() if name != "mlflow_run_id"}


def assert_preempted(run: Path) -> None:
    said = status(run)
    assert said["state"] == "preempted"
    assert (run / "checkpoints" / f"images-{said['images_seen']:010d}" / "manifest.json").is_file()


def wait_for_end(run: Path, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while training_processes(run):
        assert time.monotonic() < deadline_s, "a training process went on without its launcher"
        time.sleep(0.05)


CASES = {
    "launcher of one dies of SIGTERM": (["--quiet"], signal.SIGTERM),
    "launcher of two dies of SIGUSR1": (TWO, signal.SIGUSR1),
}


@pytest.mark.distributed
@pytest.mark.parametrize(
    "case",
    [case if kind == ["--quiet"] else pytest.param(case, marks=pytest.mark.slow) for case, (kind, _) in CASES.items()],
)
def test_run_when_its_launcher_is_asked_to_stop_saves_exits_and_says_so(data: Path, case: str) -> None:
    options, number = CASES[case]
    run = data / case.replace(" ", "-")
    # A loader process in the group gets the signal too, and must live until the run has saved.
    launcher = launch(data, run.name, *options, flags=("--data.num-workers", "1"))
    log = data / f"{run.name}.log"
    wait_until((run / "metrics.jsonl").exists, launcher, log)
    assert status(run)["state"] == "running"
    launcher.send_signal(number)
    assert launcher.wait(120) == -number, log.read_text()
    wait_for_end(run)
    assert_preempted(run)
    text = log.read_text()
    assert "rerun the same command to resume" in text
    assert "DataLoader worker" not in text


def compilers(run: Path) -> list[psutil.Process]:
    """The compiler's own processes, below those that train."""
    below = [child for number in training_processes(run) for child in psutil.Process(number).children(recursive=True)]
    return [process for process in below if any(word.endswith(".cpp") for word in words_of(process))]


def words_of(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU; this machine has none")
def test_run_when_asked_to_stop_while_it_compiles_finishes_the_step_and_exits(data: Path) -> None:
    run, log = data / "compiled", data / "compiled.log"
    compiler = {"TORCHINDUCTOR_CACHE_DIR": str(data / "compiler")}  # empty: nothing is compiled yet
    launcher = launch(data, run.name, "--quiet", flags=("--runtime.compile",), **compiler)
    wait_until(lambda: bool(compilers(run)), launcher, log)
    # As launchers do: to the whole group, the compiler's processes included.
    os.killpg(launcher.pid, signal.SIGTERM)
    wait_for_end(run, timeout_s=240.0)
    assert_preempted(run)
    assert status(run)["images_seen"] == 4, log.read_text()
    assert "rerun the same command to resume" in log.read_text()


# Slurm's commands, as far as the script uses them: one node, whose task is what srun is given.
SRUN = """#!/usr/bin/env bash
SLURM_NODEID=0 exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
if [[ "$1" == show ]]; then echo 127.0.0.1; else echo "$@" >> scontrol.log; fi
"""


@pytest.mark.slow
@pytest.mark.distributed
def test_slurm_script_when_its_time_is_nearly_over_queues_the_run_again_and_once_finished_does_not(data: Path) -> None:
    for name, content in (("srun", SRUN), ("scontrol", SCONTROL)):
        (data / name).write_text(content)
        (data / name).chmod(0o755)
    (data / "jobs").symlink_to(ROOT / "jobs")
    slurm = {
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_NODELIST": "here",
        "SLURM_GPUS_ON_NODE": "2",
    }
    environment = job_environment(data) | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"} | slurm
    environment["PATH"] = f"{data}{os.pathsep}{environment['PATH']}"
    run, log, calls = data / "queued", data / "queued.log", data / "scontrol.log"
    script = [
        "bash",
        str(ROOT / "infra" / "slurm" / "train.sbatch"),
        run.name,
        "preset.json",
        "--data.num-workers",
        "1",
    ]

    job_step = subprocess.Popen(script, cwd=data, env=environment, stderr=log.open("ab"), start_new_session=True)
    wait_until((run / "metrics.jsonl").exists, job_step, log)
    os.kill(parent_of(training_processes(run)[0]), signal.SIGUSR1)  # as Slurm does to every task of the step
    assert job_step.wait(120) == 0, log.read_text()
    assert_preempted(run)
    assert calls.read_text() == "requeue 4242\n"
    assert "DataLoader worker" not in log.read_text()

    again = [*script, "--schedule.total-images", str(status(run)["images_seen"])]
    done = subprocess.run(again, cwd=data, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert status(run)["state"] == "finished"
    assert calls.read_text() == "requeue 4242\n"
    refused = subprocess.run(script[:2], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode != 0
    assert "usage: train.sbatch RUN_DIR PRESET" in refused.stderr


def parent_of(process: int) -> int:
    return int((Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.slow
@pytest.mark.distributed
def test_configurations_each_start_and_resume_where_another_stopped(data: Path) -> None:
    run, log = data / "configurations", data / "configurations.log"
    for images, options in ((4, ONE_CPU), (8, ONE_GPU), (16, NODE), (24, ZERO_2)):
        flags = ("--schedule.total-images", str(images))
        assert launch(data, run.name, *options, flags=flags).wait(300) == 0, log.read_text()
        assert position(run) == {"state": "finished", "images_seen": images, "total_images": images}
    kinds = re.findall(r"^(.*) process\(es\)", log.read_text(), re.MULTILINE)
    assert kinds == ["one process, 1", "one process, 1", "DDP, 2", "DeepSpeed, 2"]


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("options", [TWO, ZERO_2], ids=["ddp", "zero-2"])
def test_run_when_a_rank_is_killed_is_restarted_by_the_launcher_and_ends_with_the_same_bits(
    data: Path, options: list[str], request: pytest.FixtureRequest
) -> None:
    flags = ("--schedule.total-images", "120")
    kind = request.node.callspec.id
    undisturbed, run = data / f"straight-{kind}", data / f"restarted-{kind}"
    log = data / f"{run.name}.log"
    straight = launch(data, undisturbed.name, *options, flags=flags)
    assert straight.wait(300) == 0, (data / f"{undisturbed.name}.log").read_text()
    launcher = launch(data, run.name, *options, "--max_restarts", "1", flags=flags)
    wait_until((run / "checkpoints" / "images-0000000016" / "manifest.json").exists, launcher, log)
    os.kill(max(training_processes(run)), signal.SIGKILL)
    assert launcher.wait(300) == 0, log.read_text()
    assert "resuming at" in log.read_text()
    assert position(run) == {"state": "finished", "images_seen": 120, "total_images": 120}
    for name in ("metrics.jsonl", "checkpoints/images-0000000120/generator.safetensors"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), name
