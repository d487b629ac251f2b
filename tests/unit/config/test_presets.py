"""The shipped presets: the paper's numbers, their starts, and a demo that shows what it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from presets import PAPER_PRESETS, PSNR_PRESETS, load

from jobs.command_line import PRESETS
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.plain import structure
from pipeline.config.schema import Preset
from pipeline.inference.semantics import semantic_channels
from pipeline.models.discriminators import build_discriminator
from pipeline.run.record import random_networks


def test_presets_named_in_the_readme_exist() -> None:
    assert set(PRESETS.names()) == {"demo", "demo_clip", "demo_psnr", *PSNR_PRESETS, *PAPER_PRESETS}


@pytest.mark.parametrize("name", ["demo", "demo_clip", "demo_psnr", *PSNR_PRESETS, *PAPER_PRESETS])
def test_preset_reads_what_its_own_shards_table_writes(name: str) -> None:
    preset = load(name)
    assert preset.train.data.shards == preset.shards.output
    assert preset.train.generator.scale == preset.shards.scale
    assert preset.train.data.crop_px <= preset.shards.sub_image_px


@pytest.mark.parametrize("name", PAPER_PRESETS)
def test_paper_preset_starts_from_the_export_of_a_psnr_preset_with_the_same_generator(name: str) -> None:
    start = load(name).train.generator
    assert start.initial_file is not None
    assert len(start.initial_file.parts) == 4
    before = load(start.initial_file.parts[1]).train
    assert RunFolder(before.run_dir).generator == start.initial_file
    assert replace(start, initial_weights=None) == replace(before.generator, initial_weights=None)
    assert not before.is_adversarial
    assert before.data.shards == load(name).train.data.shards


@pytest.mark.parametrize("name", [name for name in PAPER_PRESETS if "realworld" not in name])
def test_paper_preset_has_the_papers_hyperparameters(name: str) -> None:
    train = load(name).train
    assert train.num_steps == 300_000
    assert train.schedule.generator_learning_rate == train.schedule.discriminator_learning_rate == 1e-4
    assert train.schedule.betas == (0.9, 0.99)
    factors = [train.schedule.learning_rate_factor(step * 32) for step in (0, 99_999, 100_000, 200_000)]
    assert factors == [1, 1, 0.5, 0.25]
    assert (train.losses.pixel_weight, train.losses.adversarial_weight) == (1.0, 0.01)
    assert train.losses.perceptual_weight == (0.1 if "_p_" in name else 1.0)
    assert (train.semantics.architecture, train.semantics.layer, train.semantics.weights) == (
        "open_clip:RN50",
        3,
        "pretrained",
    )


# The demo's values are its own matter: it has changed since then.
@pytest.mark.parametrize("name", PAPER_PRESETS)
def test_preset_resolves_to_what_it_was_when_every_file_was_complete(name: str) -> None:
    before = json.loads(Path(__file__).with_name("presets_at_c7a254d.json").read_text(encoding="utf-8"))
    then, now = structure(before[name], Preset, name, from_run_folder=True), load(name)
    own_cache = replace(then.train.data, cache_dir=now.train.data.cache_dir)  # /var/tmp is everybody's
    # Since then the presets name the generator that the paper starts from.
    start = replace(then.train.generator, initial_weights=now.train.generator.initial_weights)
    report = replace(then.train.report, metrics=("psnr_y", "ssim_y", "lpips", "haarpsi", "spectrum"))
    assert now.train == replace(then.train, data=own_cache, generator=start, report=report)
    assert now.shards.recipe_name == then.shards.recipe_name
    assert replace(now.shards, recipe=then.shards.recipe) == then.shards


@pytest.mark.parametrize("name", ["demo", "demo_clip"])
def test_demo_has_no_frozen_network_with_random_weights(name: str) -> None:
    assert random_networks(load(name).train) == []


def test_demo_starts_from_what_its_psnr_preset_leaves() -> None:
    start, demo = load("demo_psnr").train, load("demo").train
    assert RunFolder(start.run_dir).generator == demo.generator.initial_file
    assert replace(start.generator, initial_weights=None) == replace(demo.generator, initial_weights=None)
    assert not start.is_adversarial


def test_demo_s_logits_depend_on_its_semantics_from_the_start() -> None:
    """As released, without skip connections, a fusion's output is the same for any semantics."""
    torch.manual_seed(0)
    channels = semantic_channels(load("demo").train.semantics)
    image, semantics, others = torch.rand(2, 3, 96, 96), torch.randn(2, channels, 6, 6), torch.randn(2, channels, 6, 6)
    changes = {}
    for residual in (True, False):
        options = replace(load("demo").train.discriminator, residual=residual)
        network = build_discriminator(options, channels, 96).eval()
        with torch.no_grad():
            logits, changed = network(image, semantics), network(image, others)
        changes[residual] = float((changed - logits).abs().mean() / logits.std())
    assert load("demo").train.discriminator.residual
    assert changes[True] > 0.1
    assert changes[False] < 1e-4
