"""Infinite PSNR, NaN and empty sets: one rule in means, comparisons, files and promotion."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import photo
from PIL import Image

import jobs.evaluate
import jobs.promote
from jobs.terminal import EXIT_BAD_INPUT, run_job
from pipeline.inference.evaluate import validate
from pipeline.metrics.order import for_json, mean, only_finite
from pipeline.models.generators import SRVGGNetCompact, save_generator
from pipeline.train.report import MetricsFile

INF, NAN = math.inf, math.nan


def test_mean_is_that_of_the_finite_values() -> None:
    assert mean([30.0, INF, 32.0, NAN]) == 31.0
    assert mean([INF, INF]) is None
    assert mean([]) is None
    assert only_finite({"a": 1.0, "b": INF, "c": NAN, "d": None}) == {"a": 1.0}
    assert for_json({"a": 1.0, "b": -INF, "c": NAN}) == {"a": 1.0, "b": None, "c": None}


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def perfect(tmp_path: Path) -> list[str]:
    """A generator that repeats pixels, and a set of a flat photo, which it upscales without any error."""
    generator = SRVGGNetCompact(4, 1, 4)
    for parameter in generator.parameters():
        torch.nn.init.zeros_(parameter)
    save_generator(tmp_path / "generator.safetensors", generator)
    (tmp_path / "flat" / "HR").mkdir(parents=True)
    Image.new("RGB", (40, 44), (90, 90, 90)).save(tmp_path / "flat" / "HR" / "a.png")
    return [str(tmp_path / "generator.safetensors"), "--sets", str(tmp_path / "flat")]


def test_evaluation_of_a_perfect_image_is_strict_json_without_a_mean(
    perfect: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "numbers.json"
    assert run_job(jobs.evaluate.main, [*perfect, "--output", str(output)]) == 0
    results = strict(output.read_text())["sets"]["flat"]
    assert results["mean"]["psnr_y"] is None
    assert results["images"]["a"]["psnr_y"] is None
    assert results["mean"]["ssim_y"] == pytest.approx(1.0)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1] == ["bicubic", "none", "1.0000", "*"]  # of one image no interval is known


def test_table_marks_no_best_where_the_means_are_of_other_images(
    perfect: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    save_generator(tmp_path / "random.safetensors", SRVGGNetCompact(4, 1, 4))
    Image.fromarray(photo(1, 40, 44)).save(tmp_path / "flat" / "HR" / "b.png")
    both = [perfect[0], str(tmp_path / "random.safetensors"), *perfect[1:], "--output", str(tmp_path / "two.json")]
    assert run_job(jobs.evaluate.main, both) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    ssim = rows["flat"].index("SSIM-Y")
    assert [name for name in ("bicubic", "generator", "random") if "*" in rows[name][:ssim]] == []
    assert "*" in rows["bicubic"][ssim:]  # SSIM of a perfect image is a number


def test_validation_of_a_perfect_image_has_no_entry_for_its_psnr(perfect: list[str], tmp_path: Path) -> None:
    generator = SRVGGNetCompact(4, 1, 4).eval()
    for parameter in generator.parameters():
        torch.nn.init.zeros_(parameter)
    means = validate(
        generator,
        [tmp_path / "flat"],
        4,
        keep=lambda *_: None,
        must_leave=lambda: False,
    )
    assert means == pytest.approx({"flat/ssim_y": 1.0, "flat/bicubic_ssim_y": 1.0})


@pytest.mark.parametrize("main", [jobs.evaluate.main, jobs.promote.main])
def test_no_evaluation_set_at_all_is_refused(main: Any, perfect: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(main, [perfect[0], "--sets"]) == EXIT_BAD_INPUT
    assert "--sets" in capsys.readouterr().err


def test_metrics_file_is_strict_json_and_old_lines_with_infinity_do_not_win(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.write(4, {"Set5/psnr_y": INF, "generator/pixel": NAN, "Set5/ssim_y": 0.5})
    assert strict((tmp_path / "metrics.jsonl").read_text()) == {"images_seen": 4, "Set5/ssim_y": 0.5}
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"images_seen": 8, "Set5/psnr_y": Infinity}\n{"images_seen": 12, "Set5/psnr_y": 30.0}\n')
    assert metrics.validations("psnr_y") == {12: 30.0}
