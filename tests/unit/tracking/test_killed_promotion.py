"""Promotions that are killed, as SIGKILL does it: the next one into the same registered model removes what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy.event
import torch
from harness import write_photos
from mlflow import MlflowClient
from processes import forked

from pipeline.inference.promotion import parse_rule, promote
from pipeline.inference.shipped import package
from pipeline.models.generators import SRVGGNetCompact, save_generator
from pipeline.tracking import registry
from pipeline.tracking.processes import has_died, this_process
from pipeline.tracking.version_run import OF_FILES

NAME = "killed"
BY_PSNR = parse_rule("psnr_y", "psnr_y=0")
DEATHS = (
    "set_terminated",  # its own run is running
    "update_model_version",  # a version without a card; the slow test dies everywhere
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "set" / "HR", [(32, 32)])
    return tmp_path / "set"


def generator(path: Path, seed: int) -> str:
    torch.manual_seed(seed)
    save_generator(path, SRVGGNetCompact(4, 1, 4).eval())
    return str(path)


def forced(source: str, photos: Path) -> str:
    return promote(source, NAME, [photos], BY_PSNR, force=True)


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def live(source: str, photos: Path, dies_before: str | int) -> None:
    """Promote, and die before the first call of a method of MLflow's client, or before the n-th commit."""
    if isinstance(dies_before, str):
        setattr(MlflowClient, dies_before, die)
    else:
        left = iter(range(dies_before - 1))
        sqlalchemy.event.listen(sqlalchemy.Engine, "commit", lambda _: next(left, None) is None and die())
    forced(source, photos)


def life(source: str, photos: Path, dies_before: str | int) -> int | None:
    """Run such a process; return how it ended."""
    preload = ["test_killed_promotion", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store"]
    process = forked(live, (source, photos, dies_before), preload)
    process.join()
    return process.exitcode


def versions(store: str) -> list[str]:
    return sorted(str(one.version) for one in MlflowClient(store).search_model_versions(f"name='{NAME}'"))


def check_whole(store: str) -> None:
    """Every version has all that it needs, no model is without a version, and no run is running."""
    client = MlflowClient(store)
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = client.search_model_versions(f"name='{NAME}'")
    for version in found:
        assert "## Use" in (version.description or "")
        assert version.tags["verdict"] == "forced"
        assert "unfinished" not in str(version.tags)
    models = client.search_logged_models(experiments)
    assert {f"models:/{model.model_id}" for model in models} == {version.source for version in found}
    assert all(model.status == "READY" and "unfinished" not in str(model.tags) for model in models)
    ended = {run.info.run_id: run.info.status for run in client.search_runs(experiments)}
    logged = {str(version.run_id) for version in found}
    assert {ended[run_id] for run_id in logged} <= {"FINISHED"}
    assert {status for run_id, status in ended.items() if run_id not in logged} <= {"KILLED"}


def test_what_killed_promotions_left_is_removed_before_the_next(store: str, tmp_path: Path, photos: Path) -> None:
    source = generator(tmp_path / "one.safetensors", 1)
    for dies_before in DEATHS:
        assert life(source, photos, dies_before) == -signal.SIGKILL
        with pytest.raises(AssertionError):
            check_whole(store)
        registry.clear(NAME, None)
        check_whole(store)
        assert not versions(store)
    forced(source, photos)
    check_whole(store)
    champion = registry.champion(NAME)
    assert champion is not None
    assert [champion.version] == versions(store)


def test_version_that_became_champion_before_its_promotion_was_killed_is_kept(
    store: str, tmp_path: Path, photos: Path
) -> None:
    source = generator(tmp_path / "one.safetensors", 1)
    assert life(source, photos, "delete_model_version_tag") == -signal.SIGKILL
    assert forced(source, photos) == f"{NAME} version 1 is this model, and already the champion; nothing to do"
    check_whole(store)


def test_training_run_is_never_running_while_its_model_is_promoted(store: str, tmp_path: Path, photos: Path) -> None:
    client = MlflowClient(store)
    trained = client.create_run(client.create_experiment("trained")).info.run_id
    client.set_terminated(trained, "FINISHED", 1_700_000_000_000)
    before = client.get_run(trained).info
    _register(tmp_path, NAME, trained)
    after = client.get_run(trained).info
    assert (after.status, after.end_time, after.run_name) == (before.status, before.end_time, before.run_name)
    models = client.search_logged_models([before.experiment_id])
    assert [(model.source_run_id, model.status) for model in models] == [(trained, "READY")]
    registry.clear(NAME, None)  # whose experiment is not known
    assert len(client.search_logged_models([before.experiment_id])) == 1
    registry.clear(NAME, trained)
    assert not client.search_logged_models([before.experiment_id])


def test_versions_that_others_are_registering_stay(store: str, tmp_path: Path) -> None:
    for name in (NAME, "other's"):
        _register(tmp_path, name, None)
    client = MlflowClient(store)
    running = client.create_run(client.get_experiment_by_name(OF_FILES).experiment_id, run_name="register other's")
    registry.clear(NAME, None)
    assert not versions(store)
    assert [str(one.version) for one in client.search_model_versions('name="other\'s"')] == ["1"]
    assert client.get_run(running.info.run_id).info.status == "RUNNING"
    registry.clear("other's", None)
    assert not client.search_model_versions('name="other\'s"')
    assert client.get_run(running.info.run_id).info.status == "KILLED"


def _register(folder: Path, name: str, run_id: str | None) -> str:
    weights = folder / registry.WEIGHTS
    network = SRVGGNetCompact(4, 1, 4).eval()
    save_generator(weights, network)
    return registry.register(name, package(network, weights, folder / f"code of {name}"), {}, run_id, {})


def test_process_is_dead_when_its_machine_knows_it_no_more() -> None:
    program = "from pipeline.tracking.processes import this_process; print(this_process())"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert has_died(ended)
    ours = this_process()
    assert not has_died(ours)
    assert has_died(f"{ours}1")  # the number of a process that ended, which another one has now
    machine = ended.split("-")[1]
    for unknown in (ended.replace(machine, "0" * 16), "process-unknown", "", "of a process"):
        assert not has_died(unknown)


@pytest.mark.slow
def test_promotion_killed_before_any_commit_leaves_nothing_that_the_next_does_not_mend(
    store: str, tmp_path: Path, photos: Path
) -> None:
    champions: Sequence[str] = []
    for number, commit in enumerate(range(3, 200, 8)):
        source = generator(tmp_path / f"{number}.safetensors", number)
        ended = life(source, photos, commit)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        registry.clear(NAME, None)
        check_whole(store)
        assert set(champions) <= set(versions(store))
        champions = versions(store)
    assert ended == 0
    assert number > 10
    check_whole(store)
