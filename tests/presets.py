"""The shipped presets, and the training settings that flags make of them."""

from __future__ import annotations

from dataclasses import replace

from jobs.command_line import PRESETS, apply_flags
from pipeline.config.schema import Preset, TrainConfig

PSNR_PRESETS = ["rrdb_psnr_x4", "swinir_psnr_x4", "realworld_rrdb_psnr_x4"]
PAPER_PRESETS = ["rrdb_sed_p_x4", "rrdb_sed_u_x4", "swinir_sed_p_x4", "swinir_sed_u_x4", "realworld_rrdb_sed_u_x4"]


def load(name_or_path: str) -> Preset:
    return PRESETS.load(name_or_path, Preset)


def flagged(*flags: str, preset: str = "demo") -> TrainConfig:
    config, _ = apply_flags(load(preset).train, list(flags), "job", "Job.")
    return config


def with_flags(name: str, *flags: str) -> Preset:
    return replace(load(name), train=flagged(*flags, preset=name))
