"""The generator that is shown semantics in a run with P+SeD: resumed to the same bits, exported whole, compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from harness import changed, photo, two_step_preset
from safetensors.torch import save_file
from sessions import assert_same_end, run_session

import pipeline.run.record
from pipeline.config.schema import Preset
from pipeline.inference.named_model import open_model
from pipeline.inference.upscale import upscale
from pipeline.models.generators import SRVGGNetCompact, load_generator, save_generator
from pipeline.models.generators.semantic_compact_options import SemanticCompactOptions
from pipeline.run.dry_run import describe
from pipeline.tracking import Trackers


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Preset:
    """A run of two steps from the file of a plain compact generator."""
    monkeypatch.setattr(pipeline.run.record, "open_trackers", lambda *_: Trackers())
    save_generator(tmp_path / "plain.safetensors", SRVGGNetCompact(8, 2, 4))
    generator = SemanticCompactOptions(
        scale=4, num_features=8, num_blocks=2, semantics="timm:test_resnet", semantics_weights="random",
        initial_weights=tmp_path / "plain.safetensors", initial_weights_partial=True,
    )  # fmt: skip
    return changed(two_step_preset(tmp_path), generator=generator)


def test_run_resumes_to_the_same_bits_and_its_export_is_whole(preset: Preset, tmp_path: Path) -> None:
    assert "generator        semantic_compact x4, " in describe(preset)
    run_session(preset, tmp_path / "straight")
    outcome, positions = run_session(preset, tmp_path / "run", stop_at=2)
    assert (outcome.is_finished, positions) == (False, [0, 2])
    assert run_session(preset, tmp_path / "run")[0].is_finished
    assert_same_end(tmp_path / "run", tmp_path / "straight")

    ours = open_model(str(tmp_path / "run")).generator
    assert any(transform.weight.any() for transform in ours.transforms)
    again = load_generator(tmp_path / "run" / "export" / "generator.safetensors")
    lq = torch.rand(1, 3, 12, 20)
    with torch.no_grad():
        assert torch.equal(again(lq), ours(lq))
    assert upscale(ours, photo(0, 40, 50), 4, tile_px=32, overlap_px=8).shape == (160, 200, 3)


def test_run_depends_on_the_weights_of_the_vision_model(preset: Preset, tmp_path: Path) -> None:
    file = tmp_path / "extractor.safetensors"
    run_session(preset, tmp_path / "random")
    ours = open_model(str(tmp_path / "random")).generator
    state = ours.extractor.network.state_dict()
    save_file({name: value * 1.1 if value.is_floating_point() else value for name, value in state.items()}, file)
    run_session(
        changed(preset, generator=replace(preset.train.generator, semantics_weights=str(file))), tmp_path / "other"
    )
    theirs = open_model(str(tmp_path / "other")).generator
    assert not torch.equal(ours.transforms[0].weight, theirs.transforms[0].weight)
