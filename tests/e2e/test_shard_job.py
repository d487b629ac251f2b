"""The jobs that write and verify shards: through Ray, killed and run again, and given bad input."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from harness import small_shard_config
from PIL import Image

import jobs.ray_tasks
import jobs.shard
import jobs.verify
from jobs.ray_tasks import RaySession, ray_session
from jobs.terminal import JobStoppedError, run_job
from shards.config import ShardConfig
from shards.errors import InputError
from shards.read.reader import ShardSet
from shards.write.dataset import survey_and_plan, write
from shards.write.plan import Plan, make_plan
from shards.write.sources import SourceFile, discover
from shards.write.survey import SurveyTask, reject_duplicates, survey
from shards.write.tasks import shard_tasks, write_shard

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["--scale", "4", "--sub-image-px", "64", "--stride-px", "32", "--variants", "2", "--seed", "3"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos and a file that is none."""
    folder = tmp_path_factory.mktemp("source") / "photos"
    folder.mkdir()
    for number in range(6):
        image = np.random.default_rng(number).integers(0, 256, (150 + number, 171, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:5000])
    return folder


@pytest.fixture(scope="module")
def config(photos: Path) -> ShardConfig:
    return small_shard_config(photos, max_reject_fraction=0.5)


@pytest.fixture(scope="module")
def plan(config: ShardConfig) -> Plan:
    files = discover(config.source)
    surveyed = survey(SurveyTask(files, config.sub_image_px, config.max_pixels, {}))
    return make_plan(config, *reject_duplicates(surveyed, {}))


@pytest.fixture(scope="module")
def expected(plan: Plan, config: ShardConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of the shards when one process writes them one after the other."""
    folder = tmp_path_factory.mktemp("expected")
    paths = {file.name: file.path for file in discover(config.source)}
    for task in shard_tasks(plan, folder, paths):
        write_shard(task)
    return shard_hashes(folder)


@pytest.fixture(scope="module")
def session() -> Iterator[RaySession]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts a job in the background
    with ray_session(num_cpus=2) as session:
        signal.signal(signal.SIGINT, before)
        yield session


@pytest.fixture
def jobs_in_session(session: RaySession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of this process use the session instead of a Ray of their own."""
    monkeypatch.setattr(jobs.ray_tasks, "ray_session", lambda: contextlib.nullcontext(session))


def shard_hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.iterdir() if path.name.startswith(("images-", ".")))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.usefixtures("jobs_in_session")
def test_shards_when_written_by_ray_and_again_after_damage_are_byte_identical(
    session: RaySession,
    config: ShardConfig,
    plan: Plan,
    expected: dict[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sources = discover(config.source)
    here = dataclasses.replace(config, output=tmp_path / "out")
    by_ray = survey_and_plan(here, sources, (), session.executor)
    assert by_ray == (plan,)
    first = write((plan,), here.output, sources, session.executor)
    assert shard_hashes(here.output) == expected
    assert [reject.reason for reject in first.rejects] == ["truncated"]
    assert not (here.output / ".spool").exists()
    assert json.loads((here.output / "status.json").read_text())["done"] == plan.num_samples

    # What crashes leave: a shard without its done-marker, a short tar, no manifest, a temporary file.
    (here.output / "images-000000.json").unlink()
    tar = here.output / "images-000001.tar"
    tar.write_bytes(tar.read_bytes()[:1000])
    manifest = (here.output / "manifest.json").read_bytes()
    (here.output / "manifest.json").unlink()
    (here.output / ".images-000002.tar.7-0000.sed-tmp").write_bytes(b"half")
    kept = here.output / "images-000002.tar"
    before_ns = kept.stat().st_mtime_ns
    capfd.readouterr()
    write((plan,), here.output, sources, session.executor)
    assert f"reusing {len(plan.shards) - 2} of {len(plan.shards)} shards" in capfd.readouterr().err
    assert shard_hashes(here.output) == expected
    assert (here.output / "manifest.json").read_bytes() == manifest
    assert kept.stat().st_mtime_ns == before_ns
    assert len(ShardSet.open(here.output)) == plan.num_samples
    assert run_job(jobs.verify.main, [str(here.output)]) == 0
    tar.write_bytes(b"")
    capfd.readouterr()
    assert run_job(jobs.verify.main, [str(here.output)]) == 1
    assert "images-000001.tar sample" in capfd.readouterr().out

    # Only what is broken is made again, from the source that the plan names.
    manifest_file = here.output / "manifest.json"
    manifest_file.write_bytes(manifest_file.read_bytes().replace(b"images-000002", b"images-000003"))
    arguments = [str(here.output), "--repair", str(config.source[0])]
    assert run_job(jobs.verify.main, arguments) == 0
    assert "rewriting 1 of" in capfd.readouterr().err
    assert shard_hashes(here.output) == expected
    assert manifest_file.read_bytes() == manifest
    assert kept.stat().st_mtime_ns == before_ns
    tar.unlink()
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    assert run_job(jobs.verify.main, [str(here.output), "--repair", str(tmp_path)]) == 2
    assert "lacks 6 of the shards' photos" in capfd.readouterr().err


def test_map_when_tasks_fail_or_drain_says_so(session: RaySession) -> None:
    def fail_on_three(number: int) -> int:
        if number == 3:
            raise InputError("three is not for us")
        return number * 2

    assert dict(session.map(fail_on_three, [1, 2, 4, 5, 6, 7, 8], memory_bytes=2**60)) == {
        number: number * 2 for number in (1, 2, 4, 5, 6, 7, 8)
    }
    with pytest.raises(InputError, match=r"^three is not for us$"):
        list(session.map(fail_on_three, range(5)))
    drained = RaySession("", session.stop.__class__())
    seen = []
    with pytest.raises(JobStoppedError) as caught:  # noqa: PT012 - the loop is what is stopped
        for item, _ in drained.map(fail_on_three, range(10, 100), max_in_flight=4):
            seen.append(item)
            drained.stop.set()
    assert caught.value.exit_code == 143
    assert len(seen) == 4


def test_straggler_when_no_work_is_left_is_run_twice_and_the_first_result_counts(
    session: RaySession, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def hang_on_the_first_try_at_seven(number: int) -> int:
        attempt = len(list(tmp_path.glob(f"{number}-*"))) + 1
        (tmp_path / f"{number}-{attempt}").touch()
        while (number, attempt) == (7, 1):
            try:
                time.sleep(0.05)
            except KeyboardInterrupt:
                (tmp_path / "tidied-up").touch()
                raise
        return attempt

    patient = RaySession("", double_after_s=3.0)  # far above what the others take on a busy machine
    results = dict(patient.map(hang_on_the_first_try_at_seven, range(12)))
    assert results == {number: 2 if number == 7 else 1 for number in range(12)}
    assert len(list(tmp_path.glob("*[0-9]-[0-9]"))) == 13  # one try each, two at seven
    for _ in range(600):  # the slower attempt is cancelled, and not waited for
        if (tmp_path / "tidied-up").exists():
            break
        time.sleep(0.05)
    assert (tmp_path / "tidied-up").exists()
    assert "it runs a second time, and the first result counts" in capfd.readouterr().err


def start(photos: Path, output: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "jobs/shard.py", "--source", str(photos), "--output", str(output)]
    command += ["--degradation", "classical", *FLAGS, "--shard-size-mib", "0.125"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [*command, "--max-reject-fraction", "0.5", "--exclude", *flags],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_a_cut(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a job that runs has cut a photo."""
    deadline_s = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline_s:
        if list(folder.glob(".spool/*/*.zip")):
            return
        time.sleep(0.01)


def wait_for_a_shard(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a job that runs has planned and then written something."""
    while process.stderr is not None and not process.stderr.readline().startswith("rejected:"):
        assert process.poll() is None
    before = len(list(folder.glob("images-*.json")))
    deadline_s = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline_s:
        if len(list(folder.glob("images-*.json"))) > before:
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_job_when_killed_and_run_again_ends_as_if_undisturbed(
    session: RaySession,
    config: ShardConfig,
    plan: Plan,
    expected: dict[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (photos,) = config.source
    output = tmp_path / "out"
    for stop, wait in (
        (signal.SIGKILL, wait_for_a_cut),
        (signal.SIGKILL, wait_for_a_shard),
        (signal.SIGTERM, wait_for_a_shard),
    ):
        process = start(photos, output)
        wait(output, process)
        process.send_signal(stop)
        # No waiting for its workers: the next run meets those that still write.
        process.wait(timeout=120)
        # A fast machine may finish before the signal comes; then there is nothing more to stop.
        if not (output / "manifest.json").exists():
            assert process.returncode == (143 if stop == signal.SIGTERM else -stop)
    write((plan,), output, discover(config.source), session.executor)
    assert "reusing" in capfd.readouterr().err
    assert shard_hashes(output) == expected
    assert run_job(jobs.verify.main, [str(output)]) == 0


@pytest.mark.usefixtures("jobs_in_session")
def test_dry_run_when_asked_prints_the_plan_and_writes_nothing(
    photos: Path, plan: Plan, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["--source", str(photos), "--output", str(tmp_path / "out"), *FLAGS, "--shard-size-mib", "0.125"]
    flags += ["--max-reject-fraction", "0.5", "--exclude", "--dry-run"]
    assert run_job(jobs.shard.main, flags) == 0
    message = capfd.readouterr().err
    assert f"6 of 7 photos, {plan.num_samples} sub-images, {len(plan.shards)} shard(s)" in message
    assert "photos/broken.png: truncated" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("jobs_in_session")
def test_job_when_lq_images_are_given_shards_the_pairs_and_counts_the_rest(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "LR").mkdir()
    for number in (0, 3, 6):  # one fits, one is of a photo of 153 px, and there is no seventh photo
        image = np.random.default_rng(10 + number).integers(0, 256, (50, 57, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "LR" / f"{number}x3.png")
    flags = [
        "--source",
        str(photos),
        "--lq-source",
        str(tmp_path / "LR"),
        "--output",
        str(tmp_path / "out"),
        "--exclude",
    ]
    flags += ["--degradation", "paired", "--scale", "3", "--sub-image-px", "48", "--stride-px", "48", "--variants", "1"]
    flags += ["--max-reject-fraction", "1"]
    assert run_job(jobs.shard.main, [*flags, "--dry-run"]) == 0
    assert not (tmp_path / "out").exists()
    assert run_job(jobs.shard.main, flags) == 0
    message = capfd.readouterr().err
    assert message.count("1 of 7 photos, 16 sub-images, 1 shard(s)") == 2
    assert "rejected: 7 (1 hr-missing, 5 lq-missing, 1 lq-size)" in message
    assert "LR/6x3.png: hr-missing" in message
    assert run_job(jobs.verify.main, [str(tmp_path / "out")]) == 0
    sample = ShardSet.open(tmp_path / "out").sample(0)
    assert list(sample.members) == ["png", "lq.png", "json"]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--source", "/no/such/folder"], "--source /no/such/folder does not exist"),
        (["--output", "/proc/version/out"], "cannot write to the output folder"),
        (["/no/such/folder"], "--exclude /no/such/folder does not exist"),
    ],
)
def test_job_when_input_is_bad_says_so_and_exits_with_2(
    flags: list[str], text: str, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--source", str(photos), "--output", str(tmp_path / "out"), "--exclude", *flags]
    assert run_job(jobs.shard.main, arguments) == 2
    error = capfd.readouterr().err
    assert text in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_rejects_when_above_the_limit_stop_before_any_shard_is_written(
    session: RaySession, config: ShardConfig, tmp_path: Path
) -> None:
    strict = dataclasses.replace(config, max_reject_fraction=0.1, output=tmp_path / "out")
    sources: tuple[SourceFile, ...] = discover(strict.source)
    # As soon as it is clear: no more photos are looked at than were under way.
    with pytest.raises(InputError, match=r"1 of \d photos are rejected \(1 truncated\)"):
        survey_and_plan(strict, sources, (), session.executor)
    # All six photos that decode are given as evaluation images too: nothing is left to train on.
    evaluation = tuple(file for file in sources if "broken" not in file.name)
    lenient = dataclasses.replace(strict, max_reject_fraction=0.5)
    with pytest.raises(InputError, match=r"7 of 7 photos are rejected \(6 duplicate, 1 truncated\)"):
        survey_and_plan(lenient, sources, evaluation, session.executor)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".spool", "status.json"}
    # What was cut counts for the run that follows.
    write(survey_and_plan(lenient, sources, (), session.executor), lenient.output, sources, session.executor)
    assert not (tmp_path / "out" / ".spool").exists()


def test_photos_when_no_spool_is_wanted_are_not_cut_by_the_survey(
    session: RaySession, config: ShardConfig, plan: Plan, expected: dict[str, str], tmp_path: Path
) -> None:
    here = dataclasses.replace(config, output=tmp_path / "out", spool=False)
    sources = discover(here.source)
    assert survey_and_plan(here, sources, (), session.executor) == (plan,)
    assert not here.output.exists()
    write((plan,), here.output, sources, session.executor)
    assert shard_hashes(here.output) == expected


def test_settings_when_they_differ_are_refused_before_any_photo_is_cut(
    session: RaySession, config: ShardConfig, tmp_path: Path
) -> None:
    here = dataclasses.replace(config, output=tmp_path / "out")
    sources = discover(here.source)
    write(survey_and_plan(here, sources, (), session.executor), here.output, sources, session.executor)
    status = (here.output / "status.json").read_bytes()
    survey_and_plan(here, sources, (), session.executor)  # nothing is new: nothing is cut either
    assert (here.output / "status.json").read_bytes() == status
    with pytest.raises(InputError, match="seed: 3 there, 4 now"):
        survey_and_plan(dataclasses.replace(here, seed=4), sources, (), session.executor)
    (here.output / "manifest.json").unlink()
    with pytest.raises(InputError, match="1 input"):
        survey_and_plan(here, sources[1:], (), session.executor)
    assert not (here.output / ".spool").exists()


def test_command_when_input_is_bad_shows_no_traceback(tmp_path: Path) -> None:
    process = start(tmp_path / "none", tmp_path / "out")
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert message.startswith("error: --source")
    assert "Traceback" not in message
    for arguments in ([str(tmp_path)], [str(tmp_path / "none")]):
        assert run_job(jobs.verify.main, arguments) == 2
