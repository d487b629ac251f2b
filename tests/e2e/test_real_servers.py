"""Tracking and registry on servers as teams run them: MLflow's server, PostgreSQL, and artifacts in an S3 store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from harness import photo
from mlflow import MlflowClient
from other_mlflow import NEWER, OLDER
from PIL import Image
from processes import forked, run_at_once
from servers import Database, MlflowServer, ObjectStore, open_database, open_mlflow, open_object_store
from tracked_runs import open_run

import pipeline.tracking.delivery
from pipeline.inference.named_model import open_model
from pipeline.inference.promotion import parse_rule, promote
from pipeline.models.generators import SRVGGNetCompact, save_generator
from pipeline.tracking import RunDescription, promotion_lock, registry
from pipeline.tracking.database import DatabaseVersionError, check_server_database
from pipeline.tracking.environment import check_reachable

NUM_PROCESSES = 8
NUM_STEPS = 20
PRELOAD = ["test_real_servers", "mlflow.pytorch", "torch.export"]
BY_PSNR = parse_rule("psnr_y", "psnr_y=0")


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with open_database() as database:
        yield database


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with open_object_store(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture(scope="module")
def running(database: Database, store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with open_mlflow(database.uri, tmp_path_factory.mktemp("mlflow"), store) as server:
        yield server


@pytest.fixture
def server(running: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> MlflowServer:
    """MLflow's server, as the one that this process and its children track to."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.uri)
    return running


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation set of pictures in 4 x 4 px blocks of one colour, which repeating pixels upscales best."""
    folder = tmp_path_factory.mktemp("sets") / "blocks"
    (folder / "HR").mkdir(parents=True)
    for number in range(6):
        Image.fromarray(photo(number, 16, 16).repeat(4, 0).repeat(4, 1)).save(folder / "HR" / f"{number}.png")
    return folder


def noisy_generator(path: Path, noise: float) -> str:
    """Write a generator that repeats pixels and adds noise of its own: the less, the better."""
    torch.manual_seed(0)
    network = SRVGGNetCompact(4, 1, 4).eval()
    with torch.no_grad():
        for parameter in list(network.parameters())[-2:]:
            parameter.mul_(noise)
    save_generator(path, network)
    return str(path)


def challenge(source: str, name: str, photos: str) -> None:
    promote(source, name, [Path(photos)], BY_PSNR)


def train(experiment: str, rank: int, folder: str) -> None:
    """What a run sends, in the form of another process's run: numbers at every step, a picture, a file."""
    description = RunDescription(experiment, f"run {rank}", {"seed": rank}, {"rank": str(rank)})
    tracker = open_run(Path(folder) / f"run-{rank}", description)
    for step in range(NUM_STEPS):
        tracker.metrics({"generator/pixel": rank + step / NUM_STEPS}, step)
    tracker.picture("validation/photo", photo(rank, 8, 8), NUM_STEPS)
    tracker.close("FINISHED")


def history(client: MlflowClient, run_id: str, metric: str) -> dict[int, float]:
    points = client.get_metric_history(run_id, metric)
    assert len({point.step for point in points}) == len(points)
    return {point.step: point.value for point in points}


def test_two_runs_at_once_are_both_complete(server: MlflowServer, store: ObjectStore, tmp_path: Path) -> None:
    client = MlflowClient()
    run_at_once(train, [("two at once", rank, str(tmp_path)) for rank in (0, 1)], PRELOAD)
    experiment = client.get_experiment_by_name("two at once")  # which both have tried to create
    assert experiment is not None
    runs = {run.data.tags["rank"]: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {"0", "1"}
    for rank, run in runs.items():
        assert run.info.status == "FINISHED"
        assert run.data.params == {"seed": rank}
        expected = {step: int(rank) + step / NUM_STEPS for step in range(NUM_STEPS)}
        assert history(client, run.info.run_id, "generator/pixel") == expected
        assert [
            key
            for key in store.object_names()
            if f"{run.info.run_id}/artifacts/images/" in key and key.endswith(".png")
        ]


def test_run_misses_nothing_when_the_server_is_killed_and_comes_back(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.tracking.delivery, "LONGEST_PAUSE_S", 1.0)
    run = open_run(tmp_path / "run", RunDescription("outage", "killed server"))
    for step in range(30):
        if step == 10:
            while not run.run_id:
                time.sleep(0.05)
            server.kill()
        if step == 20:
            server.start()
        run.metrics({"generator/pixel": step / 2}, step)
        if step % 5 == 0:
            run.picture("Set5/baby", photo(step, 8, 8), step)
        time.sleep(0.05)
    run.close("FINISHED")
    client = MlflowClient()
    assert history(client, run.run_id, "generator/pixel") == {step: step / 2 for step in range(30)}
    pictures = [item.path for item in client.list_artifacts(run.run_id, "images") if item.path.endswith(".png")]
    assert sorted(int(path.split("+")[2]) for path in pictures) == list(range(0, 30, 5))
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_database_when_it_crashes_between_two_calls_is_found_again(server: MlflowServer, database: Database) -> None:
    client = MlflowClient()
    run_id = client.create_run(client.create_experiment("restarted")).info.run_id
    client.log_metric(run_id, "psnr", 27.0, step=1)
    database.kill()
    database.start()
    client.log_metric(run_id, "psnr", 28.0, step=2)
    assert history(client, run_id, "psnr") == {1: 27.0, 2: 28.0}


def test_postgresql_database_of_another_mlflow_is_refused_with_the_remedy(database: Database) -> None:
    for name, revision in (("older", OLDER), ("newer", NEWER)):
        database.execute(f"CREATE DATABASE {name}")
        uri = f"{database.uri.replace('postgres@', 'postgres:c4n4ry@').rpartition('/')[0]}/{name}"
        check_reachable(uri)  # empty: MLflow creates its tables
        check_server_database.cache_clear()
        database.execute("CREATE TABLE alembic_version (version_num text)", name)
        database.execute(f"INSERT INTO alembic_version VALUES ('{revision}')", name)
        with pytest.raises(DatabaseVersionError, match=f"was made by an {name}|was made by a {name}") as raised:
            check_reachable(uri)
        assert "c4n4ry" not in str(raised.value)
        advice = 'mlflow db upgrade "$MLFLOW_TRACKING_URI"' if name == "older" else "pip install --upgrade mlflow"
        assert advice in str(raised.value)


def test_database_that_does_not_exist_is_named(database: Database) -> None:
    with pytest.raises(ConnectionError, match=r'cannot be used as a database: .*"none" does not exist'):
        check_reachable(f"{database.uri.rpartition('/')[0]}/none")


def test_champion_is_fetched_back_from_the_object_store(
    server: MlflowServer, store: ObjectStore, blocks: Path, tmp_path: Path
) -> None:
    source = noisy_generator(tmp_path / "model.safetensors", 0.1)
    assert "version 1 is champion, the first of its name" in promote(source, "fetched", [blocks], BY_PSNR)
    assert [name for name in store.object_names() if name.endswith(f"artifacts/{registry.WEIGHTS}")]
    image = torch.rand(1, 3, 9, 11)
    fetched = open_model(f"{registry.SCHEME}fetched@{registry.CHAMPION}").generator
    with torch.inference_mode():
        assert torch.equal(fetched(image), open_model(source).generator(image))


def pause_by(monkeypatch: pytest.MonkeyPatch, pause: Callable[[float], None]) -> None:
    """Let whoever waits for a lock call a function between two polls, instead of sleeping."""
    monkeypatch.setattr(promotion_lock, "time", SimpleNamespace(sleep=pause, time=time.time))


def description_of(lock: str) -> str:
    return MlflowClient().get_registered_model(lock).description


def test_lock_without_a_sign_of_life_is_removed_after_so_many_polls(
    server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion_lock, "_ABANDONED_AFTER_POLLS", 3)
    pauses: list[float] = []
    pause_by(monkeypatch, pauses.append)
    lock = promotion_lock.lock_name("killed")
    MlflowClient().create_registered_model(lock, description="of a process that was killed")
    with registry.exclusive("killed"):
        assert "of a process" not in description_of(lock)
    assert len(pauses) == 4
    assert not MlflowClient().search_registered_models(f"name='{lock}'")


def test_lock_that_is_renewed_between_polls_is_waited_for(
    server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion_lock, "_ABANDONED_AFTER_POLLS", 2)
    client, lock = MlflowClient(), promotion_lock.lock_name("slow")
    client.create_registered_model(lock, description="slow 0")
    pauses: list[float] = []

    def renew(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 10:
            client.delete_registered_model(lock)
        elif len(pauses) % 2 == 0:
            client.update_registered_model(lock, f"slow {len(pauses)}")

    pause_by(monkeypatch, renew)
    with registry.exclusive("slow"):
        assert len(pauses) == 10


def test_lock_is_renewed_while_it_is_held(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion_lock, "_RENEWED_EVERY_S", 0.1)
    lock = promotion_lock.lock_name("renewed")
    deadline_s = time.monotonic() + 60
    with registry.exclusive("renewed"):
        first = description_of(lock)
        while description_of(lock) == first:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert description_of(lock).startswith(first)


def hold(name: str, held: Path) -> None:
    """Hold the lock of a registered model until this process is killed."""
    with registry.exclusive(name):
        held.touch()
        threading.Event().wait()


def test_lock_of_a_promotion_that_was_killed_on_this_machine_is_removed_at_once(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = forked(hold, ("died", tmp_path / "held"), PRELOAD)
    while not (tmp_path / "held").exists():
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    pauses: list[float] = []
    pause_by(monkeypatch, pauses.append)
    with registry.exclusive("died"):
        assert len(pauses) == 1
    assert not MlflowClient().search_registered_models(f"name='{promotion_lock.lock_name('died')}'")


@pytest.mark.slow
def test_concurrent_promotions_leave_one_champion_the_best(server: MlflowServer, blocks: Path, tmp_path: Path) -> None:
    noise = [0.06, 0.14, 0.01, 0.10, 0.02, 0.12, 0.04, 0.08]
    sources = [noisy_generator(tmp_path / f"{one}.safetensors", one) for one in noise]
    run_at_once(challenge, [(source, "raced", str(blocks)) for source in sources], PRELOAD)
    versions = MlflowClient().search_model_versions("name='raced'")
    assert {version.tags["source"] for version in versions} == set(sources)
    assert len(versions) == NUM_PROCESSES
    champion = registry.champion("raced")
    assert champion is not None
    assert champion.tags["source"] == sources[int(np.argmin(noise))]
