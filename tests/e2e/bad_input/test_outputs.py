"""Where no job writes: where it cannot, over one of its inputs, or over another program's file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import model_file, photo, write_photos
from PIL import Image

import jobs.cache_features
import jobs.evaluate
import jobs.preview
import jobs.report
import jobs.shard
import jobs.train_sed
import jobs.upscale
from jobs.terminal import run_job


@pytest.mark.parametrize("output", ["/proc/version/out", "taken/out", "taken"])
def test_shard_when_the_output_cannot_be_written(refuse: Callable[..., None], here: Path, output: str) -> None:
    write_photos(here / "photos", [(140, 140)])
    (here / "taken").write_text("a file")
    arguments = ["--source", "photos", "--output", output, "--exclude"]
    refuse(jobs.shard.main, arguments, "cannot write to the output folder", "Not a directory", output)


@pytest.mark.parametrize("folder", ["/proc/version/run", "taken/run"])
def test_run_folder_when_it_cannot_be_written(
    refuse: Callable[..., None], here: Path, prepared: Path, folder: str
) -> None:
    (here / "taken").write_text("a file")
    arguments = [str(prepared / "preset.json"), "--run-dir", folder]
    refuse(jobs.train_sed.main, arguments, "cannot write to the output folder", f"at {folder}", "Not a directory")


@pytest.mark.parametrize("output", ["/proc/version/features", "taken/features"])
def test_cache_when_it_cannot_be_written(refuse: Callable[..., None], here: Path, prepared: Path, output: str) -> None:
    (here / "taken").write_text("a file")
    arguments = [str(prepared / "preset.json"), "--output", output]
    refuse(jobs.cache_features.main, arguments, "cannot write to the output folder", f"at {output}")


def test_evaluate_when_the_output_cannot_be_written(refuse: Callable[..., None], prepared: Path, here: Path) -> None:
    model = model_file(here / "m.safetensors")
    (here / "taken").write_text("a file")
    for name in ("--output", "--picture"):
        arguments = [model, "--sets", str(prepared / "validation"), "--output", "n.json", name, "taken/x.json"]
        refuse(jobs.evaluate.main, arguments, "cannot write to the output folder", "at taken")


def test_upscale_when_the_output_is_the_input(refuse: Callable[..., None], prepared: Path, here: Path) -> None:
    model = model_file(here / "m.safetensors")
    shutil.copytree(prepared / "photos", here / "photos")
    (here / "link").symlink_to("photos")
    image = "photos/photo0.png"
    replaced = "photo0.png would be replaced by its own output"
    for source, output in (
        ("photos", "photos"),
        ("photos", "photos/."),
        ("photos", "link"),
        ("link", "photos"),
        (image, image),
        (image, "photos"),
        ("link/photo0.png", image),
        (image, "new/../photos/photo0.png"),
    ):
        refuse(jobs.upscale.main, [model, source, output, "--overwrite"], replaced, "give another output")


def test_upscale_when_jpegs_would_be_joined_by_their_output(refuse: Callable[..., None], here: Path) -> None:
    model = model_file(here / "m.safetensors")
    (here / "photos").mkdir()
    Image.fromarray(photo(0, 9, 8)).save(here / "photos" / "a.jpg")
    refuse(jobs.upscale.main, [model, "photos", "photos"], "is the input folder", "give another")


def test_upscale_when_the_output_belongs_to_another_program(
    refuse: Callable[..., None], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_file(here / "m.safetensors")
    Image.fromarray(photo(0, 9, 8)).save(here / "a.png")
    (here / "out").mkdir()
    Image.fromarray(photo(1, 5, 5)).save(here / "out" / "a.png")
    refuse(jobs.upscale.main, [model, "a.png", "out"], "out/a.png exists and is not an output of this job; --overwrite")
    assert run_job(jobs.upscale.main, [model, "a.png", "out", "--overwrite"]) == 0
    assert Image.open(here / "out" / "a.png").size == (32, 36)
    # Its own output it replaces without being told to.
    assert run_job(jobs.upscale.main, [model, "a.png", "out"]) == 0
    assert "wrote 1 image(s)" in capsys.readouterr().err


def test_evaluate_when_an_output_is_an_input_or_another_programs(refuse: Callable[..., None], here: Path) -> None:
    model = model_file(here / "m.safetensors")
    write_photos(here / "set" / "HR", [(24, 24)])
    (here / "notes.json").write_text('{"notes": 1}')
    arguments = [model, "--sets", "set"]
    refuse(
        jobs.evaluate.main, [*arguments, "--output", "m.safetensors", "--overwrite"], "m.safetensors would be replaced"
    )
    (here / "run" / "export").mkdir(parents=True)
    exported = model_file(here / "run" / "export" / "generator.safetensors")
    refuse(jobs.evaluate.main, ["run", *arguments[1:], "--output", exported, "--overwrite"], "would be replaced by its")
    refuse(
        jobs.evaluate.main, [*arguments, "--output", "notes.json"], "notes.json exists and is not an output of this job"
    )
    image = "set/HR/photo0.png"
    refuse(jobs.evaluate.main, [*arguments, "--picture", image, "--overwrite"], f"{image} would be replaced")
    refuse(
        jobs.evaluate.main, [*arguments, "--output", "a.json", "--picture", "a.json"], "a.json would be written twice"
    )
    (here / "new").mkdir()
    for other in ("new/../a.json", str(here / "a.json")):  # the same file by another path
        refuse(
            jobs.evaluate.main,
            [*arguments, "--output", "a.json", "--table", other],
            f"{other} would be written twice",
        )
    for _ in range(2):
        assert run_job(jobs.evaluate.main, [*arguments, "--output", "a.json", "--picture", "a.png"]) == 0


def test_report_when_the_output_is_an_input_or_another_programs(refuse: Callable[..., None], here: Path) -> None:
    model = model_file(here / "m.html")  # weights are known by what they hold
    write_photos(here / "set" / "HR", [(24, 24)])
    (here / "notes.html").write_text("<p>notes")
    arguments = [model, "--sets", "set", "--metrics", "psnr_y", "--output"]
    refuse(jobs.report.main, [*arguments, "m.html", "--overwrite"], "m.html would be replaced by its own output")
    refuse(
        jobs.report.main, [*arguments, "notes.html"], "notes.html exists and is not an output of this job; --overwrite"
    )
    refuse(jobs.report.main, [*arguments, "report.json"], "report.json does not end in .html")
    refuse(jobs.report.main, [*arguments, "notes.html/report.html"], "cannot write to the output folder")
    for _ in range(2):
        assert run_job(jobs.report.main, [*arguments, "report.html"]) == 0


def test_preview_when_the_output_belongs_to_another_program(
    refuse: Callable[..., None], prepared: Path, here: Path
) -> None:
    Image.fromarray(photo(0, 9, 8)).save(here / "a.png")
    refuse(
        jobs.preview.main,
        [str(prepared / "shards"), "--output", "a.png"],
        "a.png exists and is not an output of this job",
    )


def test_features_when_the_output_is_the_shards(refuse: Callable[..., None], prepared: Path, here: Path) -> None:
    shutil.copytree(prepared / "shards", here / "shards")
    shutil.copytree(prepared / "shards", here / "other")
    arguments = [str(prepared / "preset.json"), "--shards", "shards"]
    refuse(jobs.cache_features.main, [*arguments, "--output", "shards/."], "is an input of this job")
    refuse(jobs.cache_features.main, [*arguments, "--output", "other"], "output folder other holds", "choose a new")


def test_shard_when_the_output_is_the_source(refuse: Callable[..., None], prepared: Path, here: Path) -> None:
    shutil.copytree(prepared / "photos", here / "photos")
    refuse(jobs.shard.main, ["--source", "photos", "--output", "photos/.", "--exclude"], "is an input of this job")
    arguments = ["--source", "photos", "--output", ".", "--exclude"]
    refuse(jobs.shard.main, arguments, f"output folder {here} holds", "photos")


def test_training_when_its_export_would_replace_its_initial_weights(
    refuse: Callable[..., None], prepared: Path, here: Path
) -> None:
    (here / "run" / "export").mkdir(parents=True)
    weights = model_file(here / "run" / "export" / "generator.safetensors")
    arguments = [str(prepared / "preset.json"), "--run-dir", "run", "--generator.initial-weights", weights]
    refuse(jobs.train_sed.main, [*arguments, "--dry-run"], "generator.safetensors would be replaced by its own output")
    refuse(jobs.train_sed.main, arguments, "run holds export/generator.safetensors, which a run would replace")


@pytest.mark.parametrize("name", ["metrics.jsonl", "status.json", "export/discriminator.safetensors"])
def test_training_when_its_folder_holds_the_files_of_another_program(
    refuse: Callable[..., None], prepared: Path, here: Path, name: str
) -> None:
    (here / "run" / name).parent.mkdir(parents=True)
    (here / "run" / name).write_text("of another program")
    arguments = [str(prepared / "preset.json"), "--run-dir", "run"]
    refuse(jobs.train_sed.main, arguments, f"run holds {name}, which a run would replace", "another --run-dir")
