"""A generator through the registry and back: the same weights, any image size, one champion."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import mlflow.pyfunc
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file
from spandrel_sizes import small_options

from pipeline.errors import CheckpointError
from pipeline.inference.named_model import open_model
from pipeline.inference.shipped import package
from pipeline.models.generators import Generator, SRVGGNetCompact, build_generator, save_generator
from pipeline.tracking import registry
from pipeline.tracking.names import metric_name
from pipeline.tracking.packages import import_path_restored
from pipeline.tracking.version_run import OF_FILES

NAME = "sed-test"


def packed(folder: Path, generator: Generator) -> registry.Package:
    folder.mkdir()
    save_generator(folder / registry.WEIGHTS, generator)
    return package(generator, folder / registry.WEIGHTS, folder / "code")


def saved_generator(folder: Path, seed: int) -> tuple[Generator, registry.Package]:
    torch.manual_seed(seed)
    generator = SRVGGNetCompact(4, 1, 4).eval()
    return generator, packed(folder, generator)


def in_channels_first(uri: str, image: torch.Tensor) -> torch.Tensor:
    with import_path_restored():
        return torch.from_numpy(mlflow.pyfunc.load_model(uri).predict(image.numpy()))


def test_model_when_registered_promoted_and_fetched_is_the_same(store: str, tmp_path: Path) -> None:
    assert registry.champion(NAME) is None
    generator, one = saved_generator(tmp_path / "one", 1)
    tags = {"weights_sha256": "abc", "evaluation_sets": "s\udce9t"}  # a folder's name of before UTF-8
    first = registry.register(NAME, one, tags, None, {"psnr_y": 27.5}, card=lambda place: f"On s\udce9t, {place.name}.")
    assert MlflowClient(store).get_model_version(NAME, first).description == f"On s?t, {NAME}."
    assert registry.champion(NAME) is None
    registry.name_champion(NAME, first)
    assert registry.champion(NAME) == registry.Champion(first, {"weights_sha256": "abc", "evaluation_sets": "s?t"})

    uri = f"{registry.SCHEME}{NAME}@{registry.CHAMPION}"
    fetched, given = load_file(registry.fetch(uri)), load_file(one.weights)
    assert fetched.keys() == given.keys()
    assert all(torch.equal(fetched[name], tensor) for name, tensor in given.items())
    opened = open_model(uri)
    image = torch.rand(1, 3, 13, 19)  # neither the example's height nor its width
    with torch.inference_mode():
        assert opened.scale == 4
        assert torch.equal(opened.generator(image), generator(image))
        assert torch.equal(in_channels_first(uri, image), generator(image).clamp(0, 1))

    run_id = MlflowClient(store).get_model_version(NAME, first).run_id
    assert MlflowClient(store).get_run(run_id).data.metrics == {"psnr_y": 27.5}

    other, two = saved_generator(tmp_path / "two", 2)
    second = registry.register(NAME, two, {}, None, {"psnr_y": 28.5})
    assert second != first
    assert registry.champion(NAME).version == first
    registry.name_champion(NAME, second)
    assert registry.champion(NAME).version == second
    with torch.inference_mode():
        assert torch.equal(open_model(uri).generator(image), other(image))
        by_number = open_model(f"{registry.SCHEME}{NAME}/{first}")
        assert torch.equal(by_number.generator(image), generator(image))


def test_network_of_spandrel_is_stored_with_its_library_and_computes_the_same(store: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    generator = build_generator(small_options("ATD")).eval()
    atd = packed(tmp_path / "atd", generator)
    assert any(requirement.startswith("spandrel==") for requirement in atd.requirements)
    version = registry.register(NAME, atd, {}, None, {})
    uri, image = f"{registry.SCHEME}{NAME}/{version}", torch.rand(1, 3, 13, 19)
    with torch.inference_mode():
        assert torch.equal(open_model(uri).generator(image), generator(image))
        assert torch.equal(in_channels_first(uri, image), generator(image).clamp(0, 1))


@pytest.mark.parametrize("uri", ["models:/none@champion", "models:/none/1", "models:/none"])
def test_model_when_unknown_is_refused_with_the_store(store: str, uri: str) -> None:
    with pytest.raises(CheckpointError, match=r"(?s)cannot be fetched from sqlite:.*jobs/promote\.py registers"):
        open_model(uri)


def test_stored_model_when_it_gives_another_output_is_refused_and_deleted(store: str, tmp_path: Path) -> None:
    _, one = saved_generator(tmp_path / "one", 1)
    _, two = saved_generator(tmp_path / "two", 2)
    with pytest.raises(CheckpointError, match="models:/sed-test/1 was stored, but its output differs by"):
        registry.register(NAME, dataclasses.replace(one, expected=two.expected), {}, None, {})
    assert not MlflowClient(store).search_model_versions(f"name='{NAME}'")


def test_import_path_is_the_same_after_a_registration(store: str, tmp_path: Path) -> None:
    _, one = saved_generator(tmp_path / "one", 1)
    before, entries = sys.path, list(sys.path)
    registry.register(NAME, one, {}, None, {})
    assert sys.path is before
    assert sys.path == entries


def test_card_is_a_file_of_the_model_and_as_much_of_it_as_fits_the_description(store: str, tmp_path: Path) -> None:
    _, one = saved_generator(tmp_path / "one", 1)
    picture = tmp_path / "comparison.png"
    picture.write_bytes(b"png")
    card = "# a\n\n## first\n" + "x" * 4000 + "\n\n## second\n" + "y" * 4000

    def with_link(place: registry.Place) -> str:
        return f"{place.run_link}\n{card}"

    version = registry.register(NAME, one, {}, None, {}, card=with_link, pictures=[picture])
    found = MlflowClient(store).get_model_version(NAME, version)
    run = MlflowClient(store).get_run(found.run_id).info
    folder = registry.fetch(f"{registry.SCHEME}{NAME}/{version}").parents[1]
    link = f"#/experiments/{run.experiment_id}/runs/{run.run_id}"
    assert (folder / registry.CARD).read_text() == f"{link}\n{card}"
    assert (folder / picture.name).read_bytes() == b"png"
    assert found.description.startswith(link)
    assert found.description.endswith("x\n\nThe whole card is README.md, among the model's files.\n")


def test_best_aliases_name_the_best_mean_on_the_same_images_and_the_oldest_of_equals(
    store: str, tmp_path: Path
) -> None:
    higher = {"psnr_y": True, "lpips:alex/v0.1": False, "ssim_y": True}
    rows: list[tuple[str, Mapping[str, str]]] = [
        ("set5", {"psnr_y": "27.5"}),
        ("set5", {"psnr_y": "27.5", "lpips:alex/v0.1": "0.1"}),
        ("set14", {"psnr_y": "30"}),
        ("set5", {"psnr_y": "26", "lpips:alex/v0.1": "0.3"}),
        ("set5", {"psnr_y": "about 40", "lpips:alex/v0.1": "nan"}),  # tags that a person has edited
    ]
    _, one = saved_generator(tmp_path / "one", 1)
    client = MlflowClient(store)
    client.create_registered_model(NAME)
    best = {}
    for images, numbers in rows:
        version = client.create_model_version(NAME, str(one.weights.parent)).version
        for tag, value in {registry.EVALUATION: images, **numbers}.items():
            client.set_model_version_tag(NAME, version, metric_name(tag), value)
        best[str(version)] = registry.name_best(NAME, str(version), higher)
    assert best["1"] == {"psnr_y": "1"}
    assert best["2"] == {"psnr_y": "1", "lpips:alex/v0.1": "2"}
    assert best["3"] == {"psnr_y": "3"}
    assert best["4"] == best["5"] == best["2"]
    aliases = client.get_registered_model(NAME).aliases
    assert {name: str(version) for name, version in aliases.items()} == {
        "best-psnr_y": "1",
        "best-lpips-alex-v0-1": "2",
    }


def test_model_when_its_run_is_unknown_to_the_server_is_registered_in_a_run_of_its_own(
    store: object, tmp_path: Path
) -> None:
    _, one = saved_generator(tmp_path / "one", 1)
    assert registry.register(NAME, one, {}, "0" * 32, {}) == "1"


def test_run_when_its_model_is_registered_keeps_its_name(store: object, tmp_path: Path) -> None:
    client = MlflowClient()
    run = client.create_run(client.create_experiment("named"), run_name="demo/run")
    _, one = saved_generator(tmp_path / "one", 1)
    registry.register(NAME, one, {}, run.info.run_id, {"psnr_y": 27.0})
    assert client.get_run(run.info.run_id).info.run_name == "demo/run"


def test_run_while_its_model_is_registered_keeps_its_status_so_that_a_kill_leaves_none_running(
    store: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient()
    trained = client.create_run(client.create_experiment("trained")).info.run_id
    client.set_terminated(trained, "KILLED")
    _, one = saved_generator(tmp_path / "one", 1)
    seen: list[str] = []

    def look(*_: object) -> str:
        seen.extend(
            run.info.status for run in client.search_runs([e.experiment_id for e in client.search_experiments()])
        )
        raise CheckpointError("killed here")

    monkeypatch.setattr(registry, "log_package", look)
    for run_id in (trained, None):
        with pytest.raises(CheckpointError, match="killed here"):
            registry.register(NAME, one, {}, run_id, {})
    assert "RUNNING" not in seen
    experiment = client.get_experiment_by_name(OF_FILES)
    assert experiment is not None
    assert [run.info.run_name for run in client.search_runs([experiment.experiment_id])] == [f"register {NAME}"]
    assert client.get_run(trained).info.status == "KILLED"


def test_model_when_the_project_was_renamed_is_found_and_when_its_files_are_gone_the_folder_is_named(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, renamed = tmp_path / "project", tmp_path / "renamed"
    project.mkdir()
    shutil.move(tmp_path / "mlflow.db", project / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
    monkeypatch.chdir(project)
    _, one = saved_generator(tmp_path / "one", 1)
    MlflowClient().create_experiment("sed", artifact_location=str(project / "mlruns" / "1"))
    run_id = MlflowClient().create_run("1").info.run_id
    version = registry.register(NAME, one, {}, run_id, {})
    monkeypatch.chdir(tmp_path)
    project.rename(renamed)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{renamed / 'mlflow.db'}")
    found = registry.fetch(f"{registry.SCHEME}{NAME}/{version}")
    assert found.is_relative_to(renamed)
    assert found.read_bytes() == one.weights.read_bytes()
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
    with pytest.raises(CheckpointError, match=r"(refused: .*name[\s\S]*|cannot be called .* )give another --name"):
        registry.champion(name)
