"""Tiny arms and two seeds, compared by one command: twice the same, also after kills; nothing is chosen by result."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import BIN, assert_bad_input, job, job_environment, prepare_tiny_data, run_command, write_preset
from mlflow import MlflowClient
from studies import vote, write_votes

from pipeline.experiments.study_file import read_study

EXPERIMENT = """
title = "Tiny"
question = "Is one better?"
baseline = "plain"
primary = "psnr_y"
margin = 0.5
metrics = ["psnr_y", "gmsd"]
seeds = [1, 2]
[budgets.cpu]
preset = "preset.json"
train.losses.adversarial_weight = 1.0
train.schedule.pixel_only_images = 4
train.schedule.generator_learning_rate = 1e-2
[arms.plain]
title = "P"
train.discriminator.semantic = false
[arms.sed]
title = "P+SeD"
[arms.again]
title = "P under another name"
train.discriminator.semantic = false
"""
COMMAND = ["python", job("compare.py"), "tiny.toml", "--workers", "2", "--study"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    write_preset(prepare_tiny_data(folder), folder / "preset.json")
    (folder / "tiny.toml").write_text(EXPERIMENT)
    return folder


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    """The folder of an experiment that nothing disturbed."""
    done = run_command([*COMMAND, "--output", "straight"], folder)
    assert done.returncode == 0, done.stderr
    assert "P+SeD" in done.stdout
    assert "(baseline)" in done.stdout
    return folder / "straight"


def numbers(folder: Path) -> tuple[str, dict[str, object]]:
    document = json.loads((folder / "comparison.json").read_bytes())
    return (folder / "comparison.csv").read_text(), {key: document[key] for key in document.keys() - {"origin"}}


@pytest.mark.slow
def test_experiment_leaves_a_report_numbers_and_pictures(finished: Path) -> None:
    table, document = numbers(finished)
    # arms x seeds x images of the validation set, and a line of names
    assert len(table.splitlines()) == 1 + 3 * 2 * 2
    assert list(document["arms"]) == ["plain", "sed", "again"]
    assert b"P under another name" in (finished / "report.html").read_bytes()
    assert len(list((finished / "pictures").glob("*/validation/*.png"))) == (3 + 2) * 2
    # Fixed positions: the export at the end, whatever was best.
    for path in finished.glob("measured/*/*.json"):
        run = finished / "runs" / path.parent.name / path.stem
        assert json.loads((run / "status.json").read_text())["state"] == "finished"
        assert json.loads(path.read_bytes())["model"] == str(Path("straight") / run.relative_to(finished))


@pytest.mark.slow
def test_runs_are_nested_in_mlflow_under_one_of_the_experiment(folder: Path, finished: Path) -> None:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    parent = client.get_run((finished / "tracking" / "mlflow" / "run_id").read_text().strip())
    assert set(parent.data.metrics) == {
        f"{arm}/{name}" for arm in ("plain", "sed", "again") for name in ("psnr_y", "gmsd")
    }
    assert {"report.html", "comparison.csv"} <= {file.path for file in client.list_artifacts(parent.info.run_id)}
    for status in finished.glob("runs/*/*/status.json"):
        child = client.get_run(json.loads(status.read_text())["mlflow_run_id"])
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id


@pytest.mark.slow
def test_study_asks_of_every_arm_and_its_votes_are_scored(folder: Path, finished: Path) -> None:
    assert b"again" not in (finished / "study" / "study.html").read_bytes()
    study = read_study(finished / "study" / "study.json")
    assert set(study.arms.values()) == {"plain", "sed", "again"}
    for voter in (1, 2):
        write_votes(folder / f"votes-{voter}.json", vote(study, voter, {"plain": 0.0, "sed": 2.0, "again": 0.0}))
    scoring = [*COMMAND[:3], "--output", "straight", "--votes"]
    scored = run_command([*scoring, "votes-1.json", "votes-2.json"], folder)
    assert scored.returncode == 0, scored.stderr
    assert all(arm in scored.stdout for arm in ("plain", "sed", "again"))
    assert_bad_input(run_command([*scoring, "preset.json"], folder), "preset.json")


@pytest.mark.slow
def test_same_arm_under_another_name_has_identical_numbers(finished: Path) -> None:
    table, document = numbers(finished)
    rows = [line.split(",") for line in table.splitlines()[1:]]
    assert [row[1:] for row in rows if row[0] == "plain"] == [row[1:] for row in rows if row[0] == "again"]
    assert [row[1:] for row in rows if row[0] == "plain"] != [row[1:] for row in rows if row[0] == "sed"]
    difference = document["arms"]["again"]["differences"]["psnr_y"]
    assert (difference["mean"], difference["low"], difference["high"]) == (0, 0, 0)
    assert difference["verdict"] == "equivalent"


@pytest.mark.slow
def test_second_call_trains_nothing_and_says_the_same(folder: Path, finished: Path) -> None:
    before = numbers(finished)
    written = {path: path.stat().st_mtime_ns for path in finished.glob("runs/*/*/export/*")}
    done = run_command([*COMMAND, "--output", "straight"], folder)
    assert done.returncode == 0, done.stderr
    assert numbers(finished) == before
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.slow
def test_experiment_when_killed_at_random_moments_ends_with_the_same_table(folder: Path, finished: Path) -> None:
    moments = random.Random(4)
    command = [str(BIN / "python"), *COMMAND[1:], "--output", "killed"]
    for number in (signal.SIGKILL, signal.SIGTERM):
        running = subprocess.Popen(
            command, cwd=folder, env=job_environment(folder), stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        time.sleep(moments.uniform(6, 14))
        # Trainings of a killed experiment keep running, and a second call would meet their locks.
        os.killpg(running.pid, number) if number == signal.SIGKILL else running.send_signal(number)
        running.communicate(timeout=120)
        subprocess.run(["pkill", "-f", str(folder / "killed")], check=False)
    done = run_command([*COMMAND, "--output", "killed"], folder)
    assert done.returncode == 0, done.stderr
    assert numbers(folder / "killed") == numbers(finished)


@pytest.mark.slow
def test_experiment_on_ray_has_the_same_numbers(folder: Path, finished: Path) -> None:
    done = run_command([*COMMAND[:3], "--output", "on-ray", "--ray", "--seeds", "1"], folder, timeout_s=560)
    assert done.returncode == 0, done.stderr
    heading, *rows = numbers(finished)[0].splitlines()
    of_seed_1 = [row for row in rows if row.split(",")[1] == "1"]
    assert numbers(folder / "on-ray")[0].splitlines() == [heading, *of_seed_1]


@pytest.mark.slow
def test_other_settings_in_the_same_folder_are_refused(folder: Path, finished: Path) -> None:
    (folder / "other.toml").write_text(EXPERIMENT.replace("semantic = false", "num_features = 16"))
    done = run_command(["python", job("compare.py"), "other.toml", "--output", "straight"], folder)
    assert_bad_input(done, "holds a run with other settings", "num_features")


@pytest.mark.slow
def test_run_that_fails_is_named_with_the_end_of_its_log_and_the_others_go_on(folder: Path) -> None:
    (folder / "faulty.toml").write_text(
        EXPERIMENT + '[arms.faulty]\ntitle = "?"\ntrain.discriminator.initial_weights = "no"\n'
    )
    done = run_command([*COMMAND[:2], "faulty.toml", "--output", "faulty", "--seeds", "1"], folder)
    assert done.returncode == 1
    assert "1 of 4 runs are not done" in done.stderr
    assert "faulty/seed-1" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "faulty" / "measured" / "again" / "seed-1.json").is_file()


def test_dry_run_says_what_it_costs_and_writes_nothing(folder: Path) -> None:
    done = run_command([*COMMAND, "--output", "dry", "--dry-run"], folder)
    assert done.returncode == 0, done.stderr
    assert "6 = 3 arms x 2 seeds" in done.stdout
    assert "hours" in done.stdout
    assert not (folder / "dry").exists()
