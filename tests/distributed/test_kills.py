"""SIGKILL at seeded random moments, of one process or of all: the run ends with the bits of an undisturbed one."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import warm
from harness import ROOT, comparable, prepare_tiny_data, tiny_preset, write_preset
from safetensors.torch import load_file
from warm import Life

TOTAL_IMAGES = 120
REPORT_IMAGES = 20
WAYS = ("all", "leader", "last", "file event")
# A run of two steps does some 110 things to its files; in so many tests, so that each is short on a busy machine too.
NUM_PARTS = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    prepare_tiny_data(folder)
    changes = {"schedule.total_images": TOTAL_IMAGES, "report.validate_every_images": 24}
    write_preset(tiny_preset(folder, **changes), folder / "preset.json")
    return folder


def life(data: Path, name: str, more: Sequence[str] = (), **ending: object) -> Life:
    return Life([str(data / "preset.json"), "--run-dir", str(data / name), *more], data / f"{name}.log", **ending)


def undisturbed(data: Path, world_size: int, more: Sequence[str]) -> Path:
    run = data / f"run-straight-{world_size}{'-adaptive' if more else ''}"
    if not run.exists():
        assert warm.join(warm.start(life(data, run.name, more), world_size)) == [0] * world_size
    return run


def lines_in(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def kill_at_a_moment(ranks: list[BaseProcess], victims: list[BaseProcess], run: Path, draw: random.Random) -> None:
    """Let the run write a few lines, wait a fraction of a step more, and kill."""
    # One that dies before it has met the others is the launcher's to notice: they wait for it.
    goal, rest_s = lines_in(run) + draw.randint(0 if victims == ranks else 1, 4), draw.uniform(0, 0.1)
    while lines_in(run) < goal and all(process.is_alive() for process in ranks):
        time.sleep(0.002)
    time.sleep(rest_s)
    for process in victims:
        process.kill()


def one_kill(data: Path, run: Path, world_size: int, way: str, draw: random.Random, more: Sequence[str] = ()) -> str:
    """Start, kill, and wait until the others have ended by themselves; return what happened."""
    before = lines_in(run)
    last = draw.randint(1, 120) if way == "file event" else None
    ranks = warm.start(life(data, run.name, more, dies_at_file_event=last), world_size)
    victims = {"all": ranks, "leader": ranks[:1], "last": ranks[-1:], "file event": []}[way]
    if victims:
        kill_at_a_moment(ranks, victims, run, draw)
    codes = warm.join(ranks, timeout_s=60)
    assert None not in codes, f"{way}: a process went on alone: {codes}"
    return f"{way} at event {last}, {before} -> {lines_in(run)} lines, exit codes {codes}"


def assert_same_bits(run: Path, straight: Path) -> None:
    assert (run / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()
    names = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (run, straight)]
    assert names[0] == names[1]
    for name in ("generator", "discriminator"):
        ours, theirs = (load_file(folder / "export" / f"{name}.safetensors") for folder in (run, straight))
        assert ours.keys() == theirs.keys()
        assert all((ours[key] == theirs[key]).all() for key in theirs)


def kill_and_finish(data: Path, world_size: int, num_kills: int, seed: int, more: Sequence[str] = ()) -> None:
    straight = undisturbed(data, world_size, more)
    run = data / f"run-{world_size}-{seed}"
    draw = random.Random(seed)
    for number in range(num_kills):
        print(one_kill(data, run, world_size, WAYS[(number + seed) % len(WAYS)], draw, more))
    assert warm.join(warm.start(life(data, run.name, more), world_size)) == [0] * world_size
    assert_same_bits(run, straight)
    shutil.rmtree(run)


@pytest.mark.distributed
@pytest.mark.parametrize(("world_size", "seed"), [(1, 3), pytest.param(2, 1, marks=pytest.mark.slow)])
def test_run_when_killed_three_times_ends_with_the_same_bits(data: Path, world_size: int, seed: int) -> None:
    kill_and_finish(data, world_size, 3, seed)


@pytest.mark.slow
@pytest.mark.distributed
def test_run_whose_discriminator_rests_when_killed_three_times_ends_with_the_same_bits(data: Path) -> None:
    more = ("--schedule.discriminator-max-accuracy", "0.52")
    kill_and_finish(data, 2, 3, 2, more)
    shares = [line["discriminator/rest_share"] for line in losses(undisturbed(data, 2, more), "discriminator/real")]
    assert {0.0, 1.0} <= set(shares), shares


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(("world_size", "seed"), [(1, 10), (1, 11), (2, 12), (2, 13)])
def test_run_when_killed_many_times_ends_with_the_same_bits(data: Path, world_size: int, seed: int) -> None:
    kill_and_finish(data, world_size, 6, seed)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("first", range(1, 1 + NUM_PARTS))
def test_run_when_killed_before_any_thing_it_does_to_a_file_ends_with_the_same_bits(data: Path, first: int) -> None:
    """Two steps, each with a validation and a checkpoint, of which one stays: nothing happens to a file elsewhere."""
    short = {"schedule.total-images": 8, "schedule.pixel-only-images": 4, "report.validate-every-images": 4}
    short |= {"report.checkpoint-every-images": 4, "report.keep-checkpoints": 1}
    more = [text for name, value in short.items() for text in (f"--{name}", str(value))]
    straight = data / "run-short"
    if not straight.exists():
        assert warm.join(warm.start(life(data, straight.name, more=more))) == [0]
    for number in itertools.count(first, NUM_PARTS):
        run = data / f"run-event-{number}"
        codes = warm.join(warm.start(life(data, run.name, more=more, dies_at_file_event=number)))
        if codes == [0]:
            break
        assert codes == [-signal.SIGKILL]
        assert warm.join(warm.start(life(data, run.name, more=more))) == [0], f"event {number}"
        assert_same_bits(run, straight)
        shutil.rmtree(run)
    assert number > 50, "the test looks at the wrong files"


def in_mlflow(database: Path, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query; none as long as there are no tables."""
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()
    return []


def newest_checkpoint(run: Path) -> int:
    return max([0, *(int(path.name.removeprefix("images-")) for path in run.glob("checkpoints/images-*"))])


def newest_in_mlflow(database: Path) -> int:
    return max([0, *(step for (step,) in in_mlflow(database, "SELECT max(step) FROM metrics") if step)])


def kill_when_mlflow_is_at(goal: int, stage: Life, database: Path) -> None:
    """Start, and kill when the report of a position has reached MLflow."""
    (process,) = warm.start(stage)
    sent = 0
    while sent < goal:
        assert process.is_alive(), stage.log.read_text()
        time.sleep(0.01)
        sent = newest_in_mlflow(database)
    time.sleep(2)  # whatever else it would do meanwhile
    process.kill()
    process.join()


@pytest.mark.slow
@pytest.mark.distributed
def test_run_when_killed_between_a_report_and_its_checkpoint_has_each_metric_once_a_step_in_mlflow(
    data: Path, tmp_path: Path
) -> None:
    """Once before its first checkpoint, of which only the run's status knows, and once after it."""
    database, run = tmp_path / "mlflow.db", data / "run-tracked"
    amounts = {"schedule.total-images": 480, "report.every-images": REPORT_IMAGES}
    amounts |= {"report.checkpoint-every-images": 240, "report.validate-every-images": 240}
    flags = [f"--{name}={value}" for name, value in amounts.items()]
    stage = life(data, run.name, flags, environment={"MLFLOW_TRACKING_URI": f"sqlite:///{database}"})
    for last in (0, 240):
        waiting = dataclasses.replace(stage, waits_before=f"images-{last + 240:010d}")
        goal = last + 2 * REPORT_IMAGES
        kill_when_mlflow_is_at(goal, waiting, database)
        assert newest_checkpoint(run) == last
        assert newest_in_mlflow(database) < 240 + goal, "the next life would find its goal there"
    assert warm.join(warm.start(stage)) == [0], stage.log.read_text()
    assert in_mlflow(database, "SELECT status FROM runs") == [("FINISHED",)]
    points = in_mlflow(database, "SELECT key, step, value FROM metrics")
    assert len({point[:2] for point in points}) == len(points)
    expected = {
        (name, line["images_seen"], value)
        for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        for name, value in line.items()
        if name != "images_seen" and not (value == 0 and name.endswith(("data/substituted", "/skipped_updates")))
    }
    assert {point for point in points if not point[0].startswith(("speed/", "memory/", "system/"))} == expected
    speeds = [step for name, step, _ in points if name == "speed/images_per_second"]
    assert sorted(speeds) == list(range(REPORT_IMAGES, 481, REPORT_IMAGES))


def zero_2() -> dict[str, str]:
    """What `accelerate launch --config_file` sets for DeepSpeed, with the project's own file."""
    file = str(ROOT / "infra" / "deepspeed" / "zero2.json")
    return {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_CONFIG_FILE": file, "PYTHONWARNINGS": "ignore"}


def stages(data: Path, name: str, shapes: list[tuple[int, dict[str, str]]]) -> Path:
    """Train 20 steps a stage, each on so many processes and a backend; note the samples of every step."""
    for number, (world_size, environment) in enumerate(shapes, 1):
        keys = data / f"{name}-{number}.keys"
        stage = life(data, f"run-{name}", environment=environment, keys=keys)
        # Both rates are halved early: Adam divides by the gradient's own size, so a higher rate multiplies rounding.
        flags = ["--schedule.total-images", str(80 * number), "--schedule.discriminator-clock", "run"]
        stage = dataclasses.replace(stage, arguments=[*stage.arguments, *flags])
        codes = warm.join(warm.start(stage, world_size), timeout_s=300)
        assert codes == [0] * world_size, stage.log.read_text()
    return data / f"run-{name}"


def samples(data: Path, name: str, num_stages: int) -> list[list[str]]:
    """The keys of each step, over all ranks."""
    steps = []
    for number in range(1, num_stages + 1):
        files = sorted(data.glob(f"{name}-{number}.*[0-9]"))
        for rows in zip(*(file.read_text().splitlines() for file in files), strict=True):
            steps.append(",".join(rows).split(","))
    return steps


def losses(run: Path, name: str = "generator/pixel") -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # A mean logit lies around zero, where a relative tolerance says nothing; the last step of a stage validates too.
    return [
        {name: value for name, value in comparable(line).items() if not name.endswith("_logit")}
        for line in lines
        if name in line
    ]


@pytest.mark.slow
@pytest.mark.distributed
def test_run_when_moved_to_other_processes_and_backends_sees_the_same_samples_and_losses(data: Path) -> None:
    one, two, zero = (1, {}), (2, {}), (2, zero_2())
    reference = stages(data, "one", [one, one, one])
    expected_samples, expected = samples(data, "one", 3), losses(reference)
    assert len(expected_samples) == len(expected) == 60
    for name, shapes in (("ddp-zero2-ddp", [two, zero, two]), ("one-two-one", [one, two, one])):
        run = stages(data, name, shapes)
        assert samples(data, name, 3) == expected_samples
        found = losses(run)
        assert [line["images_seen"] for line in found] == [line["images_seen"] for line in expected]
        for line, other in zip(found[:40], expected[:40], strict=True):  # 20 steps after the first move
            assert line == pytest.approx(other, rel=1e-4), name
