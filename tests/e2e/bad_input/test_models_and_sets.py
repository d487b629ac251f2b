"""Models and evaluation sets that are not there, unfinished, damaged or something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Main, model_file

import jobs.evaluate
import jobs.promote
import jobs.report
import jobs.upscale
from pipeline.models.generators import SRVGGNetCompact, save_generator


def evaluate(model: str, prepared: Path) -> list[str]:
    return [model, "--sets", str(prepared / "validation"), "--output", "numbers.json"]


def upscale(model: str, prepared: Path) -> list[str]:
    return [model, str(prepared / "validation" / "HR"), "enlarged"]


def promote(model: str, prepared: Path) -> list[str]:
    return [model, "--sets", str(prepared / "validation"), "--name", "tests"]


def report(model: str, prepared: Path) -> list[str]:
    return [model, "--sets", str(prepared / "validation"), "--output", "report.html"]


MODEL_JOBS = {
    "evaluate": (jobs.evaluate.main, evaluate),
    "upscale": (jobs.upscale.main, upscale),
    "promote": (jobs.promote.main, promote),
    "report": (jobs.report.main, report),
}
SET_JOBS = {name: both for name, both in MODEL_JOBS.items() if name != "upscale"}
each_model_job = pytest.mark.parametrize(("main", "arguments"), MODEL_JOBS.values(), ids=MODEL_JOBS)


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


@pytest.mark.parametrize(("main", "arguments"), SET_JOBS.values(), ids=SET_JOBS)
def test_set_when_it_is_no_evaluation_set(
    refuse: Callable[..., None], here: Path, main: Main, arguments: Callable
) -> None:
    folder = here / "validation"
    folder.mkdir()
    refuse(main, arguments("nothing.pth", here), f"no evaluation set in {folder}", "got an empty folder", "LRx4/")
    (folder / "HR").mkdir()
    refuse(main, arguments("nothing.pth", here), "no images in", "expected .avif, .bmp")


def test_upscale_when_input_or_output_does_not_fit(refuse: Callable[..., None], prepared: Path, here: Path) -> None:
    image = str(prepared / "validation" / "HR" / "photo0.png")
    (here / "taken").write_text("a file")
    refuse(jobs.upscale.main, ["m.pth", "none", "out"], "no such image or folder: none")
    refuse(jobs.upscale.main, ["m.pth", image, "out.jpg"], "out.jpg does not end in .png")
    refuse(jobs.upscale.main, ["m.pth", str(prepared / "photos"), "taken"], "cannot write to the output folder")
    refuse(jobs.upscale.main, ["m.pth", str(prepared / "shards"), "out"], "no images in")
    refuse(jobs.upscale.main, ["m.pth", image, "out.png", "--tile-px", "8", "--overlap-px", "5"], "at least twice")


def test_report_when_models_do_not_fit_together(refuse: Callable[..., None], prepared: Path, here: Path) -> None:
    arguments = ["--sets", str(prepared / "validation"), "--output", "report.html"]
    four, two = model_file(here / "four.safetensors"), str(here / "two.safetensors")
    save_generator(two, SRVGGNetCompact(4, 1, 2))
    refuse(jobs.report.main, [four, two, *arguments], "different scales", "four.safetensors: x4", "two.safetensors: x2")
    refuse(jobs.report.main, [four, four, *arguments], "is given twice")
    refuse(jobs.report.main, [four, *arguments, "--metrics", "psnry"], "did you mean psnr_y or psnr_rgb")
    refuse(jobs.report.main, [four, *arguments, "--max-photos", "-1"], "at least 0; got -1")
