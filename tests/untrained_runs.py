"""Run folders as a run of no step would leave them: random weights in every export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from harness import tiny_preset

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.inference.semantics import semantic_channels
from pipeline.models.discriminators import build_discriminator, save_discriminator
from pipeline.models.generators import build_generator, save_generator


def write_run(path: Path, **changes: Any) -> RunFolder:
    """Write a run folder: its configuration, and random weights in every export."""
    preset = tiny_preset(path, **changes)
    config, run = preset.train, RunFolder(path)
    path.mkdir()
    run.write_config(preset)
    run.generator.parent.mkdir()
    torch.manual_seed(0)
    channels = semantic_channels(config.semantics) if config.is_semantic else 0
    for name, options in config.discriminators.items():
        network = build_discriminator(options, channels, config.data.crop_px)
        save_discriminator(run.discriminator(name), options, network.state_dict(), {})
    save_generator(run.generator, build_generator(config.generator))
    return run
