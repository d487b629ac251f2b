"""The generated photos: what an LQ image shows, what metrics of texture say, and the network that knows the shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import jobs.draw_shapes
from jobs.terminal import run_job
from pipeline.experiments.shapes import drawing
from pipeline.experiments.shapes.drawing import KINDS, SIDE_PX, draw
from pipeline.experiments.shapes.extractor import ARCHITECTURE, LAYER, train_extractor
from pipeline.metrics import METRICS
from pipeline.metrics.texture import WAVES_CYCLES_PX
from pipeline.models.semantics.extractor import build_semantic_extractor
from shards.degradation import bicubic
from shards.format.png import decode_png

DISTANCE, WRONG = METRICS["texture-distance"], METRICS["texture-wrong"]


def test_drawing_hangs_on_its_seed_alone_and_shows_every_kind() -> None:
    assert np.array_equal(draw(1).photo, draw(1).photo)
    assert not np.array_equal(draw(1).photo, draw(2).photo)
    shown = np.concatenate([np.unique(draw(seed).kinds) for seed in range(8)])
    assert set(shown.tolist()) == set(range(len(KINDS) + 1))


@pytest.mark.parametrize("seed", range(3))
def test_lq_shows_shapes_and_no_texture(seed: int) -> None:
    photo = draw(seed).photo
    enlarged = bicubic.upscale(bicubic.downscale(photo, 4), 4)
    assert DISTANCE(enlarged, photo, 4) > 0.9
    assert WRONG(enlarged, photo, 4) == 0
    assert np.abs(enlarged.astype(int) - photo).mean() < 18


def test_textures_of_other_kinds_are_wrong_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    right = draw(3).photo
    monkeypatch.setattr(drawing, "WAVES_CYCLES_PX", (*WAVES_CYCLES_PX[1:], WAVES_CYCLES_PX[0]))
    exchanged = draw(3).photo
    assert WRONG(exchanged, right, 4) > 0.95
    assert DISTANCE(exchanged, right, 4) > 1.5
    half = right.copy()
    half[:, SIDE_PX // 2 :] = exchanged[:, SIDE_PX // 2 :]
    assert 0.2 < WRONG(half, right, 4) < 0.8


def test_place_of_single_stripes_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    right, texture = draw(3).photo, drawing._texture

    def moved(random: np.random.Generator, kind: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return texture(random, kind, rows + 1.3, columns + 0.9)

    monkeypatch.setattr(drawing, "_texture", moved)
    assert not np.array_equal(draw(3).photo, right)
    assert WRONG(draw(3).photo, right, 4) == 0
    assert DISTANCE(draw(3).photo, right, 4) < 0.1


def test_extractor_is_read_as_any_vision_model_and_knows_more_than_chance(tmp_path: Path) -> None:
    path = tmp_path / "extractor.safetensors"
    accuracy = train_extractor(path, 500, num_steps=100)
    # The most frequent answer is no shape, in about a quarter of the cells.
    assert accuracy > 0.5
    extractor = build_semantic_extractor(ARCHITECTURE, LAYER, path, crop_px=64)
    assert extractor(torch.rand(1, 3, 64, 64)).shape == (1, 192, 4, 4)


def test_job_draws_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "extractor.safetensors").write_bytes(b"mine")
    command = ["--output", str(tmp_path), "--num-photos", "2", "--num-validation", "1"]
    assert run_job(jobs.draw_shapes.main, command) == 0
    photos = sorted(tmp_path.glob("photos/*.png"))
    assert np.array_equal(decode_png(photos[1].read_bytes(), "photo"), draw(1).photo)
    photos[0].unlink()
    photos[1].write_bytes(b"kept")
    assert run_job(jobs.draw_shapes.main, command) == 0
    assert photos[0].is_file()
    assert photos[1].read_bytes() == b"kept"
    assert (tmp_path / "extractor.safetensors").read_bytes() == b"mine"
    assert run_job(jobs.draw_shapes.main, ["--output", str(tmp_path), "--num-photos", "0"]) == 2
