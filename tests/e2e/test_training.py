"""Training as users start it: through `accelerate launch`, killed, resumed, on other processes and other backends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import (
    BIN,
    ROOT,
    assert_bad_input,
    comparable,
    job,
    job_environment,
    photo,
    prepare_tiny_data,
    run_command,
    tiny_preset,
    write_preset,
    write_shards,
)
from PIL import Image
from safetensors.torch import load_file

from pipeline.runtime.signals import EXIT_PREEMPTED

INFRA = ROOT / "infra"
LAUNCHERS = {
    "one process": ["accelerate", "launch", "--quiet"],
    "two processes": ["accelerate", "launch", "--config_file", "infra/accelerate/cpu_2.yaml"],
    "zero 1": ["accelerate", "launch", "--config_file", "infra/accelerate/cpu_zero1.yaml"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny shards, a validation set, a preset, and the infra files as paths in it."""
    folder = tmp_path_factory.mktemp("training")
    write_preset(prepare_tiny_data(folder), folder / "preset.json")
    (folder / "infra").symlink_to(INFRA)
    return folder


def train_command(launcher: str, data: Path, run_dir: str, *flags: str) -> list[str]:
    return [*LAUNCHERS[launcher], job("train_sed.py"), str(data / "preset.json"), "--run-dir", run_dir, *flags]


def train(launcher: str, data: Path, run_dir: str, *flags: str) -> subprocess.CompletedProcess[str]:
    done = run_command(train_command(launcher, data, run_dir, *flags), data)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def undisturbed(data: Path) -> Path:
    """A run of one process, from the first to the last image."""
    train("one process", data, "undisturbed")
    return data / "undisturbed"


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(run: Path, reference: Path) -> None:
    """The same bits: exported networks, the whole last checkpoint, and the metrics file."""
    assert (run / "metrics.jsonl").read_bytes() == (reference / "metrics.jsonl").read_bytes()
    last = sorted(path.name for path in (reference / "checkpoints").iterdir())[-1]
    files = sorted(path.name for path in (reference / "checkpoints" / last).glob("*.safetensors"))
    assert len(files) == 5
    for name in files:
        ours, theirs = (folder / "checkpoints" / last / name for folder in (run, reference))
        assert ours.read_bytes() == theirs.read_bytes(), name
    ours, theirs = (load_file(folder / "export" / "generator.safetensors") for folder in (run, reference))
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def assert_close_run(run: Path, reference: Path, relative: float) -> None:
    """The same lines, and every loss within a tolerance."""
    ours, theirs = metrics(run), metrics(reference)
    assert [line["images_seen"] for line in ours] == [line["images_seen"] for line in theirs]
    for line, expected in zip(ours, theirs, strict=True):
        # A mean logit lies around zero, where a relative tolerance says nothing.
        losses = {name: value for name, value in comparable(expected).items() if not name.endswith("_logit")}
        assert {name: line[name] for name in losses} == pytest.approx(losses, rel=relative)


def test_run_leaves_what_the_design_promises(undisturbed: Path, data: Path) -> None:
    seen = [line["images_seen"] for line in metrics(undisturbed)]
    assert seen == [4, 8, 12, 12, 16, 20, 24, 24]
    adversarial = [line["images_seen"] for line in metrics(undisturbed) if "discriminator/real" in line]
    assert adversarial == [12, 16, 20, 24]
    assert (undisturbed / "export" / "discriminator.safetensors").is_file()
    assert (undisturbed / "pictures" / "validation_photo0.png").is_file()
    complete = [path for path in (undisturbed / "checkpoints").iterdir() if (path / "manifest.json").is_file()]
    assert sorted(path.name for path in complete) == ["images-0000000016", "images-0000000024"]
    again = train("one process", data, "undisturbed")
    assert "finished at 24 images; nothing to do" in again.stderr
    from_config = run_command(["python", job("train_sed.py"), str(undisturbed), "--dry-run"], data)
    assert from_config.returncode == 0
    assert f"writes           {undisturbed}" in from_config.stdout


@pytest.mark.slow
def test_run_killed_without_warning_ends_with_the_same_bits(data: Path, undisturbed: Path) -> None:
    run = data / "killed"
    for victim_after in ("images-0000000008", "images-0000000016"):
        process = subprocess.Popen(
            [str(BIN / "python"), job("train_sed.py"), str(data / "preset.json"), "--run-dir", "killed"],
            cwd=data,
            env=job_environment(data),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(run / "checkpoints" / victim_after / "manifest.json", process)
        process.kill()
        process.wait()
    torn = run / "metrics.jsonl"
    torn.write_text(torn.read_text() + '{"images_seen": 17, "gener')
    train("one process", data, "killed")
    assert_same_run(run, undisturbed)


def wait_for(path: Path, process: subprocess.Popen[bytes], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert process.poll() is None, f"the process ended before {path.name} appeared"
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_run_asked_to_stop_saves_exits_and_resumes(data: Path, undisturbed: Path) -> None:
    run = data / "stopped"
    process = subprocess.Popen(
        [str(BIN / "python"), job("train_sed.py"), str(data / "preset.json"), "--run-dir", "stopped"],
        cwd=data,
        env=job_environment(data),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(run / "metrics.jsonl", process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == EXIT_PREEMPTED, said
    assert "rerun the same command to resume" in said
    assert not (run / "export").exists()
    train("one process", data, "stopped")
    assert_same_run(run, undisturbed)


@pytest.mark.distributed
def test_two_ddp_processes_train_the_same_run_and_one_resumes_it(data: Path, undisturbed: Path) -> None:
    done = train("two processes", data, "two", "--schedule.total-images", "16")
    assert "DDP, 2 process(es)" in done.stderr
    train("one process", data, "two")
    expected = [line for line in metrics(undisturbed) if line["images_seen"] <= 12]
    run_lines = metrics(data / "two")
    assert [line["images_seen"] for line in run_lines] == [4, 8, 12, 12, 16, 16, 20, 24, 24]
    for line, reference in zip(run_lines, expected, strict=False):
        losses = {name: value for name, value in reference.items() if not name.endswith("_logit")}
        assert {name: line[name] for name in losses} == pytest.approx(losses, rel=1e-4)
    assert_close_exports(data / "two", undisturbed, relative=2e-3)


@pytest.mark.slow
@pytest.mark.distributed
def test_deepspeed_zero_1_trains_the_same_run_and_hands_it_over(data: Path, undisturbed: Path) -> None:
    done = train("zero 1", data, "zero")
    assert "DeepSpeed, 1 process(es)" in done.stderr
    assert_close_run(data / "zero", undisturbed, relative=1e-4)
    assert not any(name.startswith("gradient") for line in metrics(data / "zero") for name in line)
    shutil.copytree(data / "zero", data / "handed")
    for late in ("export", "checkpoints/images-0000000024"):
        shutil.rmtree(data / "handed" / late)
    train("one process", data, "handed")
    assert_close_run(data / "handed", undisturbed, relative=1e-4)
    shutil.rmtree(data / "handed" / "export")
    shutil.rmtree(data / "handed" / "checkpoints" / "images-0000000024")
    train("zero 1", data, "handed")
    assert_close_run(data / "handed", undisturbed, relative=1e-4)
    assert_close_exports(data / "handed", undisturbed, relative=2e-3)


def assert_close_exports(run: Path, reference: Path, relative: float) -> None:
    ours, theirs = (load_file(folder / "export" / "generator.safetensors") for folder in (run, reference))
    for name, expected in theirs.items():
        scale = float(expected.abs().max())
        assert float((ours[name] - expected).abs().max()) <= relative * max(scale, 1e-3), name


def test_other_settings_on_the_same_folder_are_refused(data: Path, undisturbed: Path) -> None:
    command = ["python", job("train_sed.py"), str(data / "preset.json"), "--run-dir", "undisturbed"]
    done = run_command([*command, "--schedule.generator-learning-rate", "0.1"], data)
    assert_bad_input(done, "generator_learning_rate: the run has 0.001, the command says 0.1", "--run-dir OTHER")


def test_launcher_that_starts_one_process_of_two_is_refused(data: Path) -> None:
    command = ["accelerate", "launch", "--cpu", "--num_processes", "2", job("train_sed.py"), str(data / "preset.json")]
    done = run_command([*command, "--run-dir", "alone"], data)
    # The launcher's own traceback follows the job's one line, and its exit code is always 1.
    assert done.returncode == 1
    assert "asked for several processes but started this one alone" in done.stderr
    assert "infra/accelerate/cpu_2.yaml" in done.stderr
    assert not (data / "alone").exists()


def test_batch_that_two_processes_cannot_share_is_refused(data: Path) -> None:
    environment = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    command = ["python", job("train_sed.py"), str(data / "preset.json"), "--run-dir", "refused"]
    done = run_command(command, data, **environment)
    assert_bad_input(
        done, "data.batch_size=4 images per step cannot be split over 3 processes", "Use 1, 2, 4 processes"
    )
    assert not (data / "refused").exists()


def test_other_shards_than_the_runs_are_refused(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    other = prepare_tiny_data(tmp_path)
    shutil.rmtree(other.shards.output)
    run_command(
        ["python", job("shard.py"), "--source", str(other.shards.source[0]), "--output", str(other.shards.output),
         "--exclude", "--sub-image-px", "64", "--stride-px", "64"],
        tmp_path,
    )  # fmt: skip
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    preset = tiny_preset(tmp_path, run_dir=str(run))
    plain = json.loads((run / "config.json").read_text())
    plain["train"]["data"]["shards"] = str(preset.train.data.shards)
    plain["train"]["semantics"]["cache"] = str(preset.train.semantics.cache)
    plain["train"]["report"]["validation_sets"] = [str(path) for path in preset.train.report.validation_sets]
    (run / "config.json").write_text(json.dumps(plain))
    done = run_command(["python", job("train_sed.py"), str(run), "--run-dir", str(run)], tmp_path)
    assert_bad_input(done, "was started on other shards")


def test_shards_with_photos_added_are_refused_and_the_runs_generation_is_named(
    data: Path, undisturbed: Path, tmp_path: Path
) -> None:
    grown = prepare_tiny_data(tmp_path)
    Image.fromarray(photo(99, 96, 96)).save(grown.shards.source[0] / "z-added.png")
    write_shards(grown.shards)
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    plain = json.loads((run / "config.json").read_text())
    plain["train"]["data"]["shards"] = str(grown.shards.output)
    (run / "config.json").write_text(json.dumps(plain))
    command = ["python", job("train_sed.py"), str(run), "--run-dir", str(run)]
    refused = run_command(command, tmp_path)
    assert_bad_input(refused, "it was generation 0 of them", "manifest-000.json over manifest.json")
    shutil.copy(grown.shards.output / "manifest-000.json", grown.shards.output / "manifest.json")
    assert run_command([*command, "--dry-run"], tmp_path).returncode == 0


def test_damaged_checkpoint_is_passed_over_and_the_run_ends_the_same(data: Path, undisturbed: Path) -> None:
    run = data / "damaged"
    shutil.copytree(undisturbed, run)
    shutil.rmtree(run / "export")
    victim = run / "checkpoints" / "images-0000000024" / "generator.safetensors"
    raw = bytearray(victim.read_bytes())
    raw[len(raw) // 2] ^= 1
    victim.write_bytes(raw)
    done = train("one process", data, "damaged")
    assert "skipping a damaged checkpoint" in done.stderr
    assert "generator.safetensors" in done.stderr
    assert_same_run(run, undisturbed)


def test_unreachable_tracking_server_changes_nothing(data: Path, undisturbed: Path) -> None:
    done = run_command(
        train_command("one process", data, "untracked"),
        data,
        MLFLOW_TRACKING_URI="http://127.0.0.1:9",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
    )
    assert done.returncode == 0, done.stderr
    assert "the run folder has everything" in done.stderr
    # facts.json names the MLflow run, so the checkpoint's own bytes differ; the networks may not.
    ours, theirs = (load_file(run / "export" / "generator.safetensors") for run in (data / "untracked", undisturbed))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert metrics(data / "untracked") == metrics(undisturbed)


def test_environment_of_the_tests_is_the_one_under_test() -> None:
    assert (BIN / "accelerate").is_file(), f"run the tests with the project's own environment, not {BIN}"
    assert os.environ.get("OMP_NUM_THREADS") == "1"
