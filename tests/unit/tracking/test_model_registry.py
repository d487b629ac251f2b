"""A generator through the registry and back: the same weights, any image size, one champion."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import mlflow.pytorch as mlflow_pytorch
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file
from spandrel_sizes import small_options
from torch import nn

from pipeline.errors import CheckpointError
from pipeline.inference.named_model import open_model
from pipeline.models.generators import SRVGGNetCompact, build_generator, save_generator
from pipeline.tracking import registry

NAME = "sed-test"


def saved_generator(folder: Path, seed: int) -> tuple[nn.Module, Path]:
    torch.manual_seed(seed)
    generator = SRVGGNetCompact(4, 1, 4).eval()
    folder.mkdir()
    save_generator(folder / registry.WEIGHTS, generator)
    return generator, folder / registry.WEIGHTS


def test_model_when_registered_promoted_and_fetched_is_the_same(store: str, tmp_path: Path) -> None:
    assert registry.champion(NAME) is None
    generator, weights = saved_generator(tmp_path / "one", 1)
    tags = {"weights_sha256": "abc", "evaluation_sets": "s\udce9t"}  # a folder's name of before UTF-8
    first = registry.register(NAME, generator, weights, tags, None, {"psnr_y": 27.5}, "On s\udce9t.")
    assert registry.champion(NAME) is None
    registry.name_champion(NAME, first)
    assert registry.champion(NAME) == registry.Champion(first, {"weights_sha256": "abc", "evaluation_sets": "s?t"})

    uri = f"{registry.SCHEME}{NAME}@{registry.CHAMPION}"
    fetched, given = load_file(registry.fetch(uri)), load_file(weights)
    assert fetched.keys() == given.keys()
    assert all(torch.equal(fetched[name], tensor) for name, tensor in given.items())
    opened = open_model(uri)
    image = torch.rand(1, 3, 13, 19)  # neither the example's height nor its width
    stored: Any = mlflow_pytorch.load_model(uri)
    with torch.inference_mode():
        assert opened.scale == 4
        assert torch.equal(opened.generator(image), generator(image))
        assert torch.allclose(stored(image), generator(image), atol=1e-5)

    run_id = MlflowClient(store).get_model_version(NAME, first).run_id
    assert MlflowClient(store).get_run(run_id).data.metrics == {"psnr_y": 27.5}

    other, other_weights = saved_generator(tmp_path / "two", 2)
    second = registry.register(NAME, other, other_weights, {}, None, {"psnr_y": 28.5})
    assert second != first
    assert registry.champion(NAME).version == first
    registry.name_champion(NAME, second)
    assert registry.champion(NAME).version == second
    with torch.inference_mode():
        assert torch.equal(open_model(uri).generator(image), other(image))
        by_number = open_model(f"{registry.SCHEME}{NAME}/{first}")
        assert torch.equal(by_number.generator(image), generator(image))


def test_network_of_spandrel_is_stored_by_its_weights_and_computes_the_same(store: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    generator = build_generator(small_options("ATD")).eval()
    save_generator(tmp_path / registry.WEIGHTS, generator)
    version = registry.register(NAME, generator, tmp_path / registry.WEIGHTS, {}, None, {}, is_one_graph=False)
    uri, image = f"{registry.SCHEME}{NAME}/{version}", torch.rand(1, 3, 13, 19)
    with torch.inference_mode():
        assert torch.equal(open_model(uri).generator(image), generator(image))
        served = mlflow.pyfunc.load_model(uri).predict(image.numpy())
        assert torch.equal(torch.from_numpy(served), generator(image))


@pytest.mark.parametrize("uri", ["models:/none@champion", "models:/none/1", "models:/none"])
def test_model_when_unknown_is_refused_with_the_store(store: str, uri: str) -> None:
    with pytest.raises(CheckpointError, match=r"(?s)cannot be fetched from sqlite:.*jobs/promote\.py registers"):
        open_model(uri)


def test_stored_model_when_it_gives_another_output_is_refused(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, weights = saved_generator(tmp_path / "one", 1)
    other, _ = saved_generator(tmp_path / "two", 2)
    monkeypatch.setattr(mlflow_pytorch, "load_model", lambda uri: other)
    monkeypatch.setattr(registry, "_log_model", lambda *_: "7")
    monkeypatch.setattr(MlflowClient, "set_model_version_tag", lambda *_: None)
    with pytest.raises(CheckpointError, match="models:/sed-test/7 was stored, but its output differs by"):
        registry.register(NAME, generator, weights, {}, None, {})


def test_model_when_its_run_is_unknown_to_the_server_is_registered_in_a_run_of_its_own(
    store: object, tmp_path: Path
) -> None:
    generator, weights = saved_generator(tmp_path / "one", 1)
    assert registry.register(NAME, generator, weights, {}, "0" * 32, {}) == "1"


def test_run_when_its_model_is_registered_keeps_its_name(store: object, tmp_path: Path) -> None:
    client = MlflowClient()
    run = client.create_run(client.create_experiment("named"), run_name="demo/run")
    generator, weights = saved_generator(tmp_path / "one", 1)
    registry.register(NAME, generator, weights, {}, run.info.run_id, {"psnr_y": 27.0})
    assert client.get_run(run.info.run_id).info.run_name == "demo/run"


def test_run_while_its_model_is_registered_keeps_its_status_so_that_a_kill_leaves_none_running(
    store: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient()
    trained = client.create_run(client.create_experiment("trained")).info.run_id
    client.set_terminated(trained, "KILLED")
    generator, weights = saved_generator(tmp_path / "one", 1)
    seen: list[str] = []

    def look(*_: object) -> str:
        seen.extend(
            run.info.status for run in client.search_runs([e.experiment_id for e in client.search_experiments()])
        )
        raise CheckpointError("killed here")

    monkeypatch.setattr(registry, "_log_model", look)
    for run_id in (trained, None):
        with pytest.raises(CheckpointError, match="killed here"):
            registry.register(NAME, generator, weights, {}, run_id, {})
    assert "RUNNING" not in seen
    assert client.get_run(trained).info.status == "KILLED"


def test_model_when_the_project_was_renamed_is_found_and_when_its_files_are_gone_the_folder_is_named(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, renamed = tmp_path / "project", tmp_path / "renamed"
    project.mkdir()
    shutil.move(tmp_path / "mlflow.db", project / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
    monkeypatch.chdir(project)
    generator, weights = saved_generator(tmp_path / "one", 1)
    MlflowClient().create_experiment("sed", artifact_location=str(project / "mlruns" / "1"))
    run_id = MlflowClient().create_run("1").info.run_id
    version = registry.register(NAME, generator, weights, {}, run_id, {})
    monkeypatch.chdir(tmp_path)
    project.rename(renamed)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{renamed / 'mlflow.db'}")
    found = registry.fetch(f"{registry.SCHEME}{NAME}/{version}")
    assert found.is_relative_to(renamed)
    assert found.read_bytes() == weights.read_bytes()
    (renamed / "mlruns").rename(tmp_path / "lost")
    with pytest.raises(CheckpointError, match=rf"files were in {project}/mlruns/1/.* is gone; .*--force"):
        registry.fetch(f"{registry.SCHEME}{NAME}/{version}")


NO_REGISTRIES = ("sqlite:////proc/none/mlflow.db", "http://127.0.0.1:9", "postgresql://127.0.0.1:9/x")
NO_ADDRESSES = ("http://[::1", "http://host:port", "s3://bucket/x", "nonsense://x")


@pytest.mark.parametrize("uri", [*NO_REGISTRIES, *NO_ADDRESSES])
def test_registry_when_unreachable_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    start_s = time.monotonic()
    with pytest.raises(CheckpointError, match="Check MLFLOW_TRACKING_URI"):
        registry.champion(NAME)
    with pytest.raises(CheckpointError, match="MLFLOW_TRACKING_URI set to the server"):
        registry.fetch(f"{registry.SCHEME}{NAME}@{registry.CHAMPION}")
    assert time.monotonic() - start_s < 15


@pytest.mark.parametrize("name", ["a/b", "a:b", "", "a?b", "a\nb"])
def test_model_name_that_mlflow_refuses_is_refused_before_anything_is_measured(store: object, name: str) -> None:
    with pytest.raises(CheckpointError, match=r"refused: .*name|cannot be called .* give another --name"):
        registry.champion(name)
