"""Evaluation in two processes: each image once, the JSON of one process, and one writer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from harness import ROOT, job, model_file, run_command, run_ranks, write_photos

import jobs.evaluate
from jobs.terminal import EXIT_BAD_INPUT, EXIT_FAULTS, run_job
from pipeline.inference.evaluate_files import EvaluationFiles, evaluate_models
from pipeline.models.generators import SRVGGNetCompact, save_generator
from shards.errors import InputError

METRICS = ("psnr_y", "gmsd", "spectrum")


def save_other(path: Path, seed: int) -> str:
    torch.manual_seed(seed)
    save_generator(path, SRVGGNetCompact(4, 1, 4))
    return str(path)


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """Two models; a set of five photos, of which the second rank finds one damaged, and a set of one."""
    models = [model_file(tmp_path / "model.safetensors"), save_other(tmp_path / "other.safetensors", 7)]
    write_photos(tmp_path / "five" / "HR", [(48, 56), (44, 44), (60, 48), (52, 48), (48, 64)])
    write_photos(tmp_path / "one" / "HR", [(48, 48)])
    (tmp_path / "five" / "HR" / "photo3.png").write_bytes(b"no image")
    return [*models, "--sets", str(tmp_path / "five"), str(tmp_path / "one"), "--metrics", *METRICS]


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_write_the_numbers_of_one_and_the_same_faults(arguments: list[str], tmp_path: Path) -> None:
    alone, together, table = tmp_path / "alone.json", tmp_path / "together.json", tmp_path / "together.csv"
    assert run_job(jobs.evaluate.main, [*arguments, "--output", str(alone)]) == EXIT_FAULTS
    launch = ["accelerate", "launch", "--config_file", str(ROOT / "infra" / "accelerate" / "cpu_2.yaml")]
    command = [*launch, job("evaluate.py"), *arguments, "--output", str(together), "--table", str(table)]
    done = run_command(command, tmp_path, PYTHONPATH=str(ROOT))
    assert together.read_bytes() == alone.read_bytes(), done.stderr
    assert "photo3.png cannot be used" in json.loads(together.read_text())["models"][0]["faults"][0]
    assert len(table.read_text().splitlines()) == 1 + 2 * 5
    # The launcher's own code for a rank that ends with 1; the other rank shows nothing.
    assert done.returncode == 1
    assert done.stdout.count("five (4 images)") == 1
    assert done.stderr.count("generator: ") == 2  # of two models
    assert "evaluating: 6/6 images" in done.stderr
    assert done.stderr.count("1 of 6 images could not be used") == 1


def on_rank(rank: int, world_size: int, folder: str) -> None:
    files = EvaluationFiles(Path(folder) / "numbers.json", None, None, None)
    name = str(Path(folder) / f"rank{rank}.safetensors")
    with pytest.raises(InputError, match=rf"rank{rank}\.safetensors: other weights on some rank"):
        evaluate_models({"model": name}, [Path(folder) / "set"], METRICS, files, overwrite=False)


@pytest.mark.distributed
def test_ranks_that_read_other_weights_are_refused(tmp_path: Path) -> None:
    write_photos(tmp_path / "set" / "HR", [(48, 48)])
    for rank in range(2):
        save_other(tmp_path / f"rank{rank}.safetensors", rank)
    run_ranks(on_rank, world_size=2, folder=tmp_path, args=(str(tmp_path),))


def test_picture_in_several_processes_is_refused_before_they_meet(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    files = ["--output", str(tmp_path / "numbers.json"), "--picture", str(tmp_path / "picture.png")]
    assert run_job(jobs.evaluate.main, [*arguments, *files]) == EXIT_BAD_INPUT
    assert "each of 2 processes has only its share" in capsys.readouterr().err
