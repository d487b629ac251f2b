"""Settings that a run cannot work with, refused before it writes anything."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import assert_bad_input, job, photo, run_command
from PIL import Image
from safetensors.torch import save_file

import jobs.train_sed
from pipeline.models.discriminators import PatchDiscriminator


def test_dry_run_when_the_scale_is_not_the_shards(refuse: Callable[..., None], prepared: Path) -> None:
    arguments = [str(prepared / "preset.json"), "--generator.scale", "2", "--run-dir", "run", "--dry-run"]
    refuse(jobs.train_sed.main, arguments, "generator.scale=2, but the shards in", "were written for scale 4")


def test_cache_when_asked_for_and_missing(refuse: Callable[..., None], prepared: Path) -> None:
    arguments = [str(prepared / "preset.json"), "--semantics.source", "cached", "--run-dir", "run"]
    refuse(jobs.train_sed.main, arguments, "no cached features in", "run jobs/cache_features.py", "online")


def test_semantic_weights_when_the_file_is_missing(refuse: Callable[..., None], prepared: Path) -> None:
    arguments = [str(prepared / "preset.json"), "--semantics.weights", "clip.pt", "--run-dir", "run"]
    refuse(jobs.train_sed.main, arguments, "clip.pt: no such weight file")


def test_initial_weights_when_of_another_network(refuse: Callable[..., None], prepared: Path, here: Path) -> None:
    save_file(PatchDiscriminator(4).state_dict(), here / "discriminator.safetensors")
    arguments = [str(prepared / "preset.json"), "--run-dir", "run"]
    arguments += ["--generator.initial-weights", "discriminator.safetensors"]
    for more in ([], ["--dry-run"]):
        refuse(jobs.train_sed.main, [*arguments, *more], "is of no generator known here", "a discriminator or another")
        named = [*arguments, "--generator.num-blocks", "2", *more]
        refuse(jobs.train_sed.main, named, "the weights do not fit SRVGGNetCompact", "missing body.0.weight")
    partial = [*arguments, "--generator.initial-weights-partial"]
    for more in ([], ["--dry-run"]):
        refuse(jobs.train_sed.main, [*partial, *more], "none of the", "fits an entry of SRVGGNetCompact")
    refuse(
        jobs.train_sed.main, [*partial[:3], partial[-1]], "initial_weights_partial=true needs a file in initial_weights"
    )


def test_discriminator_when_it_would_meet_a_random_generator(refuse: Callable[..., None], prepared: Path) -> None:
    arguments = [str(prepared / "preset.json"), "--run-dir", "run", "--schedule.pixel-only-images", "0"]
    words = ("--generator.initial-weights FILE", "--schedule.pixel-only-images N", "-weights random overrides")
    refuse(jobs.train_sed.main, arguments, *words)
    refuse(jobs.train_sed.main, [*arguments, "--dry-run"], *words)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--generator.scale", "2"], "the shards in"),
        (["--data.crop-px", "16"], "needs at least 32 px"),
        (["--report.validation-sets", "nothing"], "no such folder"),
        (["--generator.initial-weights", "typo.pth"], "no such weight file"),
        (["--runtime.precision", "fp16", "--runtime.cuda-graphs"], "precision='fp16' needs cuda_graphs=false"),
    ],
)
def test_training_when_a_setting_cannot_work_is_refused_before_anything_is_written(
    refuse: Callable[..., None], prepared: Path, flags: list[str], text: str
) -> None:
    refuse(jobs.train_sed.main, [str(prepared / "preset.json"), "--run-dir", "run", *flags], text)


SHARED = ("--runtime.discriminator-pass", "shared")
DEEPSPEED = ("ACCELERATE_USE_DEEPSPEED", "true")
APART = "set --runtime.discriminator-pass separate"


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["run", "dry run"])
@pytest.mark.parametrize(
    ("flags", "variables", "text"),
    [
        ((*SHARED, "--losses.adversarial", "relativistic_average"), [], APART),
        (("--runtime.precision", "fp16"), [DEEPSPEED], "set --runtime.precision bf16"),
        (("--runtime.precision", "float32"), [("NVIDIA_TF32_OVERRIDE", "1")], "NVIDIA_TF32_OVERRIDE=1 rounds to TF32"),
        (
            ("--report.keep-best", "lpips", "--report.checkpoint-every-images", "12"),
            [],
            "report.keep_best='lpips' is no metric of the validation",
        ),
    ],
)
def test_step_that_cannot_be_made_here_is_refused_by_the_run_and_its_dry_run(
    refuse: Callable[..., None],
    prepared: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    variables: list[tuple[str, str]],
    text: str,
    dry_run: tuple[str, ...],
) -> None:
    for name, value in variables:
        monkeypatch.setenv(name, value)
    refuse(jobs.train_sed.main, [str(prepared / "preset.json"), "--run-dir", "run", *flags, *dry_run], text)


def test_shared_pass_under_deepspeed_is_refused_by_the_dry_run(
    refuse: Callable[..., None], prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*DEEPSPEED)
    refuse(jobs.train_sed.main, [str(prepared / "preset.json"), "--run-dir", "run", *SHARED, "--dry-run"], APART)


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_cuda_graphs_without_a_gpu_are_refused(here: Path, prepared: Path, dry_run: tuple[str, ...]) -> None:
    flags = ["--run-dir", "run", "--runtime.cuda-graphs", *dry_run]
    done = run_command(["python", job("train_sed.py"), str(prepared / "preset.json"), *flags], here)  # it hides a GPU
    assert_bad_input(done, "cuda_graphs=true is for one process on a GPU", "set --runtime.no-cuda-graphs")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_compilation_without_a_compiler_is_refused(here: Path, prepared: Path, dry_run: tuple[str, ...]) -> None:
    flags = ["--run-dir", "run", "--runtime.compile", *dry_run]
    done = run_command(
        ["python", job("train_sed.py"), str(prepared / "preset.json"), *flags], here, CXX="no-such-compiler"
    )
    assert_bad_input(done, "compile=true needs a C++ compiler", "no-such-compiler", "set --runtime.no-compile")
    assert list(here.iterdir()) == []


def test_training_when_a_validation_image_is_damaged_is_refused_before_the_first_step(
    refuse: Callable[..., None], prepared: Path, here: Path
) -> None:
    shutil.copytree(prepared / "validation", here / "validation")
    cut = here / "validation" / "HR" / "photo1.png"
    cut.write_bytes(cut.read_bytes()[:900])
    (here / "validation" / "HR" / "page.jpg").write_text("<html>")
    Image.fromarray(photo(0, 40, 18)).save(here / "validation" / "HR" / "tiny.png")
    arguments = [str(prepared / "preset.json"), "--run-dir", "run", "--report.validation-sets", "validation"]
    words = ("3 image(s) of the sets", "photo1.png", "truncated", "page.jpg", "tiny.png: ssim_y needs 11 px per side")
    refuse(jobs.train_sed.main, arguments, *words)


def test_training_when_its_start_is_not_trained_yet_names_the_preset_that_trains_it(
    refuse: Callable[..., None], prepared: Path, here: Path
) -> None:
    start = "demo/psnr/export/generator.safetensors is not there yet; python jobs/train_sed.py demo_psnr trains it"
    refuse(jobs.train_sed.main, ["demo", "--data.shards", str(prepared / "shards")], start)
    assert not (here / "demo").exists()
