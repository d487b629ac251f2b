"""Bad input, job by job: exit code 2, a text that helps, no traceback, and nothing left behind.

Most run a job's `main` in this process, as its `__main__` does; one for each way of starting goes through a shell.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from harness import (
    assert_bad_input,
    job,
    job_environment,
    photo,
    prepare_tiny_data,
    run_command,
    write_photos,
    write_preset,
)
from PIL import Image
from safetensors.torch import save_file

import jobs.cache_features
import jobs.evaluate
import jobs.preview
import jobs.promote
import jobs.ray_tasks
import jobs.shard
import jobs.train_sed
import jobs.ui
import jobs.upscale
from jobs.terminal import run_job
from pipeline.models import PatchDiscriminator, SRVGGNetCompact, save_generator
from shards.format.files import open_atomic

Main = Callable[[list[str]], int]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, shards, a validation set and a preset; copied for each test that needs them."""
    folder = tmp_path_factory.mktemp("prepared")
    write_preset(prepare_tiny_data(folder), folder / "preset.json")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and an MLflow server that is not there."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return folder


@pytest.fixture(autouse=True)
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("something was started for bad input")

    monkeypatch.setattr(jobs.ray_tasks, "ray_session", refuse)
    for name in ("execv", "execve"):
        monkeypatch.setattr(jobs.ui.os, name, refuse)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} | {
        str(path.relative_to(folder)): b"folder" for path in folder.rglob("*") if path.is_dir()
    }


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str], here: Path) -> Callable[..., None]:
    """Run a job that must refuse; checks code, screen and that the working folder is as it was."""

    def check(main: Main, arguments: list[str], *words: str) -> None:
        before = everything(here)
        try:
            code = run_job(main, arguments)
        except SystemExit as left:  # tyro ends the process itself
            code = left.code
        captured = capsys.readouterr()
        text = " ".join((captured.out + captured.err).replace("│", " ").split())
        assert code == 2, text
        assert "Traceback" not in text
        assert len(captured.err.splitlines()) <= 24, captured.err
        for word in words:
            assert word in text, f"{word!r} is not in: {text}"
        assert everything(here) == before

    return check


# Sources and outputs of the sharding job.


def test_shard_when_the_source_is_missing(refuse: Callable[..., None]) -> None:
    refuse(jobs.shard.main, ["--source", "none", "--exclude"], "error: --source none does not exist", "give a folder")


def test_shard_when_the_source_is_empty(refuse: Callable[..., None], here: Path) -> None:
    (here / "empty").mkdir()
    refuse(jobs.shard.main, ["--source", "empty", "--exclude"], "--source empty holds no image; got an empty folder")


def test_shard_when_the_source_holds_no_images(refuse: Callable[..., None], here: Path) -> None:
    (here / "texts").mkdir()
    (here / "texts" / "a.txt").write_text("no photo")
    (here / "texts" / "b.pdf").write_text("no photo")
    refuse(jobs.shard.main, ["--source", "texts", "--exclude"], "got 2 other file(s), such as a.txt", ".jpg", ".png")


def test_shard_when_the_source_is_a_file(refuse: Callable[..., None], here: Path) -> None:
    Image.new("RGB", (9, 9)).save(here / "one.png")
    refuse(jobs.shard.main, ["--source", "one.png", "--exclude"], "--source one.png is no folder")


@pytest.mark.parametrize("output", ["/proc/version/out", "taken/out", "taken"])
def test_shard_when_the_output_cannot_be_written(refuse: Callable[..., None], here: Path, output: str) -> None:
    write_photos(here / "photos", [(140, 140)])
    (here / "taken").write_text("a file")
    arguments = ["--source", "photos", "--output", output, "--exclude"]
    refuse(jobs.shard.main, arguments, "cannot write to the output folder", "Not a directory", output)


def test_shard_when_values_are_out_of_range_lists_them(refuse: Callable[..., None], here: Path) -> None:
    write_photos(here / "photos", [(140, 140)])
    arguments = ["--source", "photos", "--exclude", "--sub-image-px", "130", "--variants", "0"]
    refuse(jobs.shard.main, arguments, "sub_image_px=130 is not a multiple of scale=4", "variants=0 must be at least 1")


# Presets and flags, which all jobs share.


@pytest.mark.parametrize("main", [jobs.shard.main, jobs.cache_features.main, jobs.train_sed.main])
def test_preset_when_unknown_names_the_nearest(refuse: Callable[..., None], main: Main) -> None:
    refuse(main, ["rrdb_sed_q_x4"], "unknown preset 'rrdb_sed_q_x4', did you mean 'rrdb_sed_", "known presets: demo")


def test_preset_when_its_file_is_missing(refuse: Callable[..., None]) -> None:
    refuse(jobs.train_sed.main, ["mine.toml"], "preset file mine.toml does not exist", "known presets: demo")


def test_preset_when_it_is_no_toml(refuse: Callable[..., None], here: Path) -> None:
    (here / "mine.toml").write_text("[shards\nsource = ")
    refuse(jobs.train_sed.main, ["mine.toml"], "preset mine.toml cannot be read", "line 1")


def test_preset_when_a_key_is_misspelt_names_the_nearest(refuse: Callable[..., None], here: Path) -> None:
    demo = (Path(jobs.train_sed.__file__).parent / "presets" / "demo.toml").read_text()
    (here / "mine.toml").write_text(demo.replace("batch_size", "batchsize").replace('"vanilla"', '"vanila"'))
    words = ("unknown key 'batchsize', did you mean 'batch_size'?", "train.data", "vanila", "train.losses.adversarial")
    refuse(jobs.train_sed.main, ["mine.toml"], *words)


@pytest.mark.parametrize(
    ("main", "flag", "nearest"),
    [
        (jobs.shard.main, "--sub-imag-px", "--sub-image-px"),
        (jobs.train_sed.main, "--data.crop-pz", "--data.crop-px"),
        (jobs.cache_features.main, "--data.crop-pz", "--data.crop-px"),
        (jobs.evaluate.main, "--set", "--sets"),
        (jobs.upscale.main, "--tile", "--tile-px"),
        (jobs.promote.main, "--names", "--name"),
        (jobs.ui.main, "--prt", "--port"),
    ],
)
def test_flag_when_misspelt_names_the_nearest(refuse: Callable[..., None], main: Main, flag: str, nearest: str) -> None:
    refuse(main, [flag, "3"], flag, nearest)


def test_flag_when_its_value_is_no_number(refuse: Callable[..., None]) -> None:
    refuse(jobs.train_sed.main, ["--data.batch-size", "many"], "--data.batch-size", "many")


def test_flag_when_its_value_breaks_a_rule_names_the_nearest(refuse: Callable[..., None]) -> None:
    refuse(jobs.train_sed.main, ["--data.crop-px", "50"], "crop_px=50 is not a multiple of 16; nearest is 48")


# What training and caching read.


@pytest.mark.parametrize("main", [jobs.train_sed.main, jobs.cache_features.main])
def test_shards_when_there_are_none_yet(refuse: Callable[..., None], main: Main) -> None:
    refuse(
        main, [], "no shards here yet: demo/shards does not exist", "run `python jobs/shard.py --output demo/shards`"
    )


@pytest.mark.parametrize("main", [jobs.train_sed.main, jobs.cache_features.main])
def test_shards_when_unfinished(refuse: Callable[..., None], here: Path, prepared: Path, main: Main) -> None:
    shutil.copytree(prepared / "shards", here / "demo" / "shards")
    (here / "demo" / "shards" / "manifest.json").unlink()
    refuse(main, [], "demo/shards holds tars but no manifest.json: the job that wrote them did not finish")


def test_shards_when_the_manifest_is_damaged(refuse: Callable[..., None], here: Path, prepared: Path) -> None:
    shutil.copytree(prepared / "shards", here / "shards")
    manifest = here / "shards" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"variants": 2', b'"variants": 3'))
    arguments = [str(prepared / "preset.json"), "--data.shards", "shards"]
    refuse(jobs.train_sed.main, arguments, "shards/manifest.json is damaged")


def test_shards_when_smaller_than_the_crop(refuse: Callable[..., None], prepared: Path) -> None:
    arguments = [str(prepared / "preset.json"), "--data.crop-px", "80", "--data.canvas-px", "80", "--run-dir", "run"]
    refuse(jobs.train_sed.main, arguments, "the step reads 80 px of HR", "have 64 px", "lower --data.crop-px")
    refuse(jobs.train_sed.main, [*arguments, "--dry-run"], "the step reads 80 px of HR", "have 64 px")


def test_dry_run_when_the_scale_is_not_the_shards(refuse: Callable[..., None], prepared: Path) -> None:
    arguments = [str(prepared / "preset.json"), "--generator.scale", "2", "--run-dir", "run", "--dry-run"]
    refuse(jobs.train_sed.main, arguments, "generator.scale=2, but the shards in", "were written for scale 4")


def test_cache_when_asked_for_and_missing(refuse: Callable[..., None], prepared: Path) -> None:
    arguments = [str(prepared / "preset.json"), "--semantics.source", "cached", "--run-dir", "run"]
    refuse(jobs.train_sed.main, arguments, "no cached features in", "run jobs/cache_features.py", "online")


def test_semantic_weights_when_the_file_is_missing(refuse: Callable[..., None], prepared: Path) -> None:
    arguments = [str(prepared / "preset.json"), "--semantics.weights", "clip.pt", "--run-dir", "run"]
    refuse(jobs.train_sed.main, arguments, "clip.pt: no such weight file")


def test_initial_weights_when_of_another_network(refuse: Callable[..., None], prepared: Path, tmp_path: Path) -> None:
    save_file(PatchDiscriminator(4).state_dict(), tmp_path / "discriminator.safetensors")
    arguments = [str(prepared / "preset.json"), "--run-dir", str(tmp_path / "run")]
    arguments += ["--generator.initial-weights", str(tmp_path / "discriminator.safetensors")]
    refuse(jobs.train_sed.main, arguments, "the weights do not fit SRVGGNetCompact", "missing body.0.weight")


def test_discriminator_when_it_would_meet_a_random_generator(refuse: Callable[..., None], prepared: Path) -> None:
    arguments = [str(prepared / "preset.json"), "--run-dir", "run", "--schedule.pixel-only-images", "0"]
    words = ("--generator.initial-weights FILE", "--schedule.pixel-only-images N", "-weights random insists")
    refuse(jobs.train_sed.main, arguments, *words)
    refuse(jobs.train_sed.main, [*arguments, "--dry-run"], *words)


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


# Models and evaluation sets.


def evaluate(model: str, prepared: Path) -> list[str]:
    return [model, "--sets", str(prepared / "validation"), "--output", "numbers.json"]


def upscale(model: str, prepared: Path) -> list[str]:
    return [model, str(prepared / "validation" / "HR"), "enlarged"]


def promote(model: str, prepared: Path) -> list[str]:
    return [model, "--sets", str(prepared / "validation"), "--name", "tests"]


MODEL_JOBS = [(jobs.evaluate.main, evaluate), (jobs.upscale.main, upscale), (jobs.promote.main, promote)]
each_model_job = pytest.mark.parametrize(("main", "arguments"), MODEL_JOBS, ids=["evaluate", "upscale", "promote"])


@each_model_job
def test_model_when_unknown(refuse: Callable[..., None], prepared: Path, main: Main, arguments: Callable) -> None:
    refuse(main, arguments("nothing.pth", prepared), "no such model: nothing.pth", "models:/NAME@ALIAS")


@each_model_job
def test_model_when_the_run_is_unfinished(
    refuse: Callable[..., None], prepared: Path, here: Path, main: Main, arguments: Callable
) -> None:
    (here / "run").mkdir()
    refuse(main, arguments("run", prepared), "run holds no export/generator.safetensors yet")


@each_model_job
def test_model_when_damaged(
    refuse: Callable[..., None], prepared: Path, here: Path, main: Main, arguments: Callable
) -> None:
    (here / "x.safetensors").write_bytes(b"\x00" * 64)
    refuse(main, arguments("x.safetensors", prepared), "x.safetensors: cannot be read as weights", "damaged")


@each_model_job
def test_model_when_registered_where_no_server_is(
    refuse: Callable[..., None], prepared: Path, main: Main, arguments: Callable
) -> None:
    refuse(main, arguments("models:/sed@champion", prepared), "models:/sed@champion cannot be fetched", "127.0.0.1:9")


@pytest.mark.parametrize(("main", "arguments"), [MODEL_JOBS[0], MODEL_JOBS[2]], ids=["evaluate", "promote"])
def test_set_when_it_is_no_evaluation_set(
    refuse: Callable[..., None], here: Path, main: Main, arguments: Callable
) -> None:
    (here / "validation").mkdir()
    refuse(main, arguments("nothing.pth", here), "no such folder", "validation/HR", "LRx4/")
    (here / "validation" / "HR").mkdir()
    refuse(main, arguments("nothing.pth", here), "no images in", "expected .avif, .bmp")


def test_evaluate_when_the_output_cannot_be_written(refuse: Callable[..., None], prepared: Path, here: Path) -> None:
    (here / "taken").write_text("a file")
    for name in ("--output", "--picture"):
        arguments = ["nothing.pth", "--sets", str(prepared / "validation"), "--output", "n.json", name, "taken/x.json"]
        refuse(jobs.evaluate.main, arguments, "cannot write to the output folder", "at taken")


def test_upscale_when_input_or_output_does_not_fit(refuse: Callable[..., None], prepared: Path, here: Path) -> None:
    image = str(prepared / "validation" / "HR" / "photo0.png")
    (here / "taken").write_text("a file")
    refuse(jobs.upscale.main, ["m.pth", "none", "out"], "no such image or folder: none")
    refuse(jobs.upscale.main, ["m.pth", image, "out.jpg"], "out.jpg does not end in .png")
    refuse(jobs.upscale.main, ["m.pth", str(prepared / "photos"), "taken"], "cannot write to the output folder")
    refuse(jobs.upscale.main, ["m.pth", str(prepared / "shards"), "out"], "no images in")
    refuse(jobs.upscale.main, ["m.pth", image, "out.png", "--tile-px", "8", "--overlap-px", "5"], "at least twice")


# No job writes over one of its inputs, or over somebody's file.


def model_file(path: Path) -> str:
    torch.manual_seed(0)
    save_generator(path, SRVGGNetCompact(4, 1, 4))
    return str(path)


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


def test_upscale_when_the_output_is_somebodys_file(
    refuse: Callable[..., None], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_file(here / "m.safetensors")
    Image.fromarray(photo(0, 9, 8)).save(here / "a.png")
    (here / "out").mkdir()
    Image.fromarray(photo(1, 5, 5)).save(here / "out" / "a.png")
    refuse(jobs.upscale.main, [model, "a.png", "out"], "out/a.png exists and is no output of this job; --overwrite")
    assert run_job(jobs.upscale.main, [model, "a.png", "out", "--overwrite"]) == 0
    assert Image.open(here / "out" / "a.png").size == (32, 36)
    # Its own output it replaces without being told to.
    assert run_job(jobs.upscale.main, [model, "a.png", "out"]) == 0
    assert "wrote 1 image(s)" in capsys.readouterr().err


def test_evaluate_when_an_output_is_an_input_or_somebodys(refuse: Callable[..., None], here: Path) -> None:
    model = model_file(here / "m.safetensors")
    write_photos(here / "set" / "HR", [(24, 24)])
    (here / "notes.json").write_text('{"notes": 1}')
    arguments = [model, "--sets", "set"]
    refuse(
        jobs.evaluate.main, [*arguments, "--output", "m.safetensors", "--overwrite"], "m.safetensors would be replaced"
    )
    refuse(jobs.evaluate.main, [*arguments, "--output", "notes.json"], "notes.json exists and is no output of this job")
    image = "set/HR/photo0.png"
    refuse(jobs.evaluate.main, [*arguments, "--picture", image, "--overwrite"], f"{image} would be replaced")
    refuse(
        jobs.evaluate.main, [*arguments, "--output", "a.json", "--picture", "a.json"], "a.json would be written twice"
    )
    for _ in range(2):
        assert run_job(jobs.evaluate.main, [*arguments, "--output", "a.json", "--picture", "a.png"]) == 0


def test_preview_when_the_output_is_somebodys_file(refuse: Callable[..., None], prepared: Path, here: Path) -> None:
    Image.fromarray(photo(0, 9, 8)).save(here / "a.png")
    refuse(
        jobs.preview.main, [str(prepared / "shards"), "--output", "a.png"], "a.png exists and is no output of this job"
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
    refuse(jobs.shard.main, ["--source", "photos", "--output", ".", "--exclude"], "output folder . holds", "photos")


def test_training_when_its_export_would_replace_its_initial_weights(
    refuse: Callable[..., None], prepared: Path, here: Path
) -> None:
    (here / "run" / "export").mkdir(parents=True)
    weights = model_file(here / "run" / "export" / "generator.safetensors")
    arguments = [str(prepared / "preset.json"), "--run-dir", "run", "--generator.initial-weights", weights]
    refuse(jobs.train_sed.main, arguments, "generator.safetensors would be replaced by its own output")


def test_ui_when_the_port_is_taken(refuse: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refuse(jobs.ui.main, ["--port", str(port)], f"port {port} on 127.0.0.1 cannot be used", "make ui PORT=")


# The same from a shell: `__main__` itself, and what a launcher makes of it.


def test_command_when_input_is_bad_ends_with_2_and_one_screen(here: Path) -> None:
    (here / "empty").mkdir()
    done = run_command(["python", job("shard.py"), "--source", "empty", "--exclude"], here)
    assert_bad_input(done, "error: --source empty holds no image")
    assert [path.name for path in here.iterdir()] == ["empty"]


def test_training_command_when_there_are_no_shards_ends_with_2_and_one_screen(here: Path) -> None:
    done = run_command(["python", job("train_sed.py"), "--run-dir", "run"], here)
    assert_bad_input(done, "no shards here yet: demo/shards does not exist", "python jobs/shard.py")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--generator.scale", "2"], "the shards in"),
        (["--data.crop-px", "16"], "needs at least 32 px"),
        (["--report.validation-sets", "nothing"], "no such folder"),
        (["--generator.initial-weights", "typo.pth"], "no such weight file"),
    ],
)
def test_training_when_a_setting_cannot_work_is_refused_before_anything_is_written(
    refuse: Callable[..., None], prepared: Path, flags: list[str], text: str
) -> None:
    refuse(jobs.train_sed.main, [str(prepared / "preset.json"), "--run-dir", "run", *flags], text)


def test_training_when_a_validation_image_is_damaged_is_refused_before_the_first_step(
    refuse: Callable[..., None], prepared: Path, here: Path
) -> None:
    shutil.copytree(prepared / "validation", here / "validation")
    cut = here / "validation" / "HR" / "photo1.png"
    cut.write_bytes(cut.read_bytes()[:900])
    (here / "validation" / "HR" / "page.jpg").write_text("<html>")
    arguments = [str(prepared / "preset.json"), "--run-dir", "run", "--report.validation-sets", "validation"]
    refuse(jobs.train_sed.main, arguments, "2 image(s) of the validation sets", "photo1.png", "truncated", "page.jpg")


# One bad file costs itself.


def folder_with_faults(folder: Path) -> None:
    """Two images, and between them by name one that ends too early and one that is none."""
    write_photos(folder, [(24, 32), (16, 20), (28, 24)])
    (folder / "photo1.png").write_bytes((folder / "photo1.png").read_bytes()[:200])
    (folder / "photo1b.png").write_text("<html>")


def test_upscale_when_files_are_damaged_does_the_others_and_names_them_last(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with_faults(here / "photos")
    assert run_job(jobs.upscale.main, [model_file(here / "m.safetensors"), "photos", "out"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert sorted(path.name for path in (here / "out").iterdir()) == ["photo0.png", "photo2.png"]
    assert "2 of 4 images could not be used" in lines[-3]
    assert "photos/photo1.png" in lines[-2]
    assert "photos/photo1b.png" in lines[-1]


def test_evaluate_when_files_are_damaged_measures_the_others_and_names_them_last(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_with_faults(here / "set" / "HR")
    arguments = [model_file(here / "m.safetensors"), "--sets", "set", "--output", "n.json", "--picture", "n.png"]
    assert run_job(jobs.evaluate.main, arguments) == 1
    document = json.loads((here / "n.json").read_text())
    assert list(document["sets"]["set"]["images"]) == ["photo0", "photo2"]
    assert len(document["faults"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "2 of 4 images could not be used" in lines[-3]
    assert "photo1b.png" in lines[-1]


def test_upscale_when_killed_leaves_nothing_after_the_next_run(here: Path) -> None:
    write_photos(here / "photos", [(24, 32)])
    out = here / "out"
    out.mkdir()
    litter = out / ".photo7.png.4194304-0123abcd.sed-tmp"
    kept = [out / ".images-000000.tar.4194304-0123abcd.sed-tmp", out / ".mine.png", out / "a.png.sed-tmp"]
    for path in (litter, *kept):
        path.write_bytes(b"half")
    with open_atomic(out / "living.png") as stream:  # another job that writes there now
        stream.write(b"whole")
        assert run_job(jobs.upscale.main, [model_file(here / "m.safetensors"), "photos", "out"]) == 0
    assert not litter.exists()
    assert all(path.read_bytes() == b"half" for path in kept)
    assert (out / "living.png").read_bytes() == b"whole"


@pytest.mark.parametrize(("number", "code", "words"), [(15, 143, "stopped by SIGTERM"), (2, 130, "interrupted")])
def test_upscale_when_asked_to_stop_leaves_nothing_and_says_so_last(
    here: Path, number: int, code: int, words: str
) -> None:
    write_photos(here / "photos", [(400, 400)] * 30)
    command = [sys.executable, job("upscale.py"), model_file(here / "m.safetensors"), "photos", "out"]
    running = subprocess.Popen(command, env=job_environment(here), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (here / "out" / "photo0.png").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == code, err
    assert "Traceback" not in err
    assert words in err.splitlines()[-1]
    assert not list((here / "out").glob(".*"))
