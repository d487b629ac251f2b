"""Shards of one's own degradation recipe: training applies that recipe, on a machine that no longer has its file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import job, prepare_tiny_data, run_command, write_preset, write_shards

import jobs.shard
from jobs.terminal import run_job
from pipeline.config.schema import Preset
from pipeline.data.samples import TrainingSamples
from shards.degradation.parameters import SampleParameters
from shards.degradation.recipe import FOLDER
from shards.errors import InputError
from shards.format.manifest import read_manifest
from shards.write.plan import settings_of

# One JPEG of one quality, then one filter: no draw of a shipped recipe looks like this.
RECIPE = """
format = 1
name = "our-cameras-1"

[end]
area_probability = 1.0
bilinear_probability = 0.0
bicubic_probability = 0.0
matlab_bicubic_probability = 0.0
jpeg_last_probability = 0.0

[end.jpeg]
probability = 1.0
quality = [37.0, 37.0]
mode = "faithful"
"""


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    """The tiny dataset, sharded with a recipe file that is gone afterwards."""
    folder = tmp_path_factory.mktemp("own")
    preset = prepare_tiny_data(folder)
    file = folder / "cameras.toml"
    file.write_text(RECIPE)
    sharding = dataclasses.replace(
        preset.shards, degradation="realworld", recipe=str(file), output=folder / "own_shards"
    )
    write_shards(sharding)
    file.unlink()
    data = dataclasses.replace(preset.train.data, shards=folder / "own_shards")
    train = dataclasses.replace(preset.train, data=data)
    preset = Preset(dataclasses.replace(sharding, recipe="default"), train)
    write_preset(preset, folder / "preset.json")
    return preset


def drawn(preset: Preset) -> list[SampleParameters]:
    samples = TrainingSamples(preset.train.data, preset.train.seed)
    parameters = [samples[position].parameters for position in range(4)]
    assert None not in parameters
    return parameters


def test_draws_of_training_are_those_of_the_recipe_in_the_manifest(preset: Preset) -> None:
    settings = read_manifest(preset.train.data.shards).images
    assert settings.recipe == "our-cameras-1"
    for parameters in drawn(preset):
        jpeg, resize, skipped = parameters.steps
        assert parameters.recipe == "our-cameras-1"
        assert (jpeg.quality, jpeg.mode, resize.mode, skipped.quality) == (37.0, "faithful", "area", None)


def test_training_runs_on_shards_of_an_own_recipe(preset: Preset) -> None:
    folder = preset.train.data.shards.parent
    flags = ["--schedule.total-images", "4", "--report.validate-every-images", "4"]
    command = ["python", job("train_sed.py"), str(folder / "preset.json"), *flags]
    done = run_command(command, folder)
    assert done.returncode == 0, done.stderr
    assert (preset.train.run_dir / "export" / "generator.safetensors").is_file()


def test_shipped_recipe_that_is_not_the_default_is_recorded_by_name_alone(preset: Preset, tmp_path: Path) -> None:
    config = dataclasses.replace(preset.shards, recipe="realesrgan-light-1", output=tmp_path / "light")
    write_shards(config)
    settings = read_manifest(tmp_path / "light").images
    assert (settings.recipe, settings.recipe_table) == ("realesrgan-light-1", None)
    data = dataclasses.replace(preset.train.data, shards=tmp_path / "light")
    light = dataclasses.replace(preset, train=dataclasses.replace(preset.train, data=data))
    assert {parameters.recipe for parameters in drawn(light)} == {"realesrgan-light-1"}


def test_copy_of_a_shipped_recipe_is_that_recipe(preset: Preset, tmp_path: Path) -> None:
    (tmp_path / "copy.toml").write_bytes((FOLDER / "realesrgan-1.toml").read_bytes())
    by_path, by_default = (
        settings_of(dataclasses.replace(preset.shards, recipe=name))
        for name in (str(tmp_path / "copy.toml"), "default")
    )
    assert by_path == by_default


def test_changed_recipe_on_the_same_output_is_refused(preset: Preset, tmp_path: Path) -> None:
    file = tmp_path / "cameras.toml"
    file.write_text(RECIPE)
    config = dataclasses.replace(preset.shards, recipe=str(file), output=tmp_path / "shards")
    write_shards(config)
    file.write_text(RECIPE.replace("37.0", "38.0"))
    with pytest.raises(InputError, match=r"started with other settings or inputs:\n  recipe_table: "):
        write_shards(config)


@pytest.fixture
def refuse(preset: Preset, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Check that the sharding job refuses a recipe on one screen, before any work."""

    def check(recipe: str, *words: str, degradation: str = "realworld") -> None:
        output = tmp_path / "refused"
        source = str(preset.shards.source[0])
        flags = ["--source", source, "--output", str(output), "--exclude", "--degradation", degradation]
        assert run_job(jobs.shard.main, [*flags, "--recipe", recipe]) == 2
        screen = capfd.readouterr().err
        assert "Traceback" not in screen
        assert len(screen.splitlines()) <= 24
        for word in words:
            assert word in screen
        assert not output.exists()

    return check


def test_bad_recipe_is_refused_on_one_screen(refuse: Callable[..., None], tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    refuse(str(file), f"no recipe '{file}'", "bicubic-1, realesrgan-1, realesrgan-light-1")
    refuse("realesrgan-2", "no recipe 'realesrgan-2'")
    file.write_text("format = ")
    refuse(str(file), f"{file}: not TOML")
    file.write_text(RECIPE.replace("[37.0, 37.0]", "[0.0, 370.0]").replace("area_prob", "haze_prob"))
    refuse(str(file), f"{file}: ", "fault(s)", "haze_probability", "quality must be")
    file.write_text(RECIPE.replace("our-cameras-1", "realesrgan-1"))
    refuse(str(file), "has the name of a shipped recipe, 'realesrgan-1', and another content")
    refuse("realesrgan-light-1", "is not for classical shards", 'degradation="realworld"', degradation="classical")
