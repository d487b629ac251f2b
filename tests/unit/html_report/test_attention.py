"""Attention of a run: the cells that are shown, and why there may be none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import photo, tiny_preset

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.inference.attention import least_alike
from pipeline.inference.html_report.attention import draw_attention
from pipeline.inference.semantics import semantic_channels
from pipeline.models.discriminators import build_discriminator, save_discriminator


def test_cells_that_are_least_alike_are_found() -> None:
    semantics = torch.ones(3, 2, 3)
    semantics[:, 0, 2] = torch.tensor([1.0, -1.0, 0.5])
    semantics[:, 1, 1] = torch.tensor([-1.0, 1.0, 0.5])
    cells, distance = least_alike(semantics)
    assert cells == (2, 4)
    assert distance == pytest.approx(1 + 1.75 / 2.25)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"losses.adversarial_weight": 0.0}, "the run trains no discriminator"),
        ({"discriminator.semantic": False}, "is not semantic-aware"),
        ({}, "no export/discriminator.safetensors, which a run writes at its end"),
    ],
)
def test_reason_is_given_where_there_is_no_attention(tmp_path: Path, changes: dict, reason: str) -> None:
    run = RunFolder(tmp_path)
    run.write_config(tiny_preset(tmp_path, **changes))
    attention = draw_attention(run, {"photo": photo(0, 64, 64)})
    assert isinstance(attention, str)
    assert reason in attention


def test_photos_may_be_too_small_and_the_others_show_two_cells(tmp_path: Path) -> None:
    run, preset = RunFolder(tmp_path), tiny_preset(tmp_path)
    run.write_config(preset)
    config = preset.train
    torch.manual_seed(0)
    network = build_discriminator(config.discriminator, semantic_channels(config.semantics), config.data.crop_px)
    run.discriminator().parent.mkdir()
    save_discriminator(run.discriminator(), config.discriminator, network.state_dict(), {})
    small = draw_attention(run, {"small": photo(0, 20, 64)})
    assert isinstance(small, str)
    assert "no photo that the report shows has" in small
    attention = draw_attention(run, {"small": photo(0, 20, 64), "large": photo(1, 90, 70)})
    assert not isinstance(attention, str)
    assert attention.photo == "large"
    assert len(attention.queries) == 2
    assert all(query.attention.weights.sum() == pytest.approx(1, abs=1e-5) for query in attention.queries)
    ends = [query.attention.ends for query in attention.queries]
    assert all(smallest.startswith("-") and largest.startswith("+") for smallest, largest in ends)
    assert attention.is_almost_even  # as initial weights are small
