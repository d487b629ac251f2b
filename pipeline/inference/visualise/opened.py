"""A run folder opened to look at its discriminators: the networks, and the frozen vision model of its semantics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import TrainConfig
from pipeline.inference.exports import load_exported
from pipeline.inference.semantics import build_extractor, semantic_channels
from pipeline.inference.visualise.decisions import Look
from pipeline.models.discriminators import Discriminator
from pipeline.models.semantics.extractor import SemanticExtractor
from shards.errors import InputError


@dataclass(frozen=True)
class OpenRun:
    """A run with its discriminators.

    Attributes:
        folder: Of the run.
        config: Its configuration.
        discriminators: In evaluation mode, by name.
        extractor: Of the semantics; None where the run has no semantic-aware discriminator and it cannot be built.
        missing: Why there is none; else empty.
    """

    folder: RunFolder
    config: TrainConfig
    discriminators: Mapping[str, Discriminator]
    extractor: SemanticExtractor | None
    missing: str

    @property
    def crop_px(self) -> int:
        """Side of the crops that the discriminators were trained on."""
        return self.config.data.crop_px

    def is_semantic(self, name: str) -> bool:
        """Return whether a discriminator is semantic-aware."""
        return self.config.discriminators[name].semantic

    def look(self, name: str) -> Look:
        """Return from where a discriminator has its semantics."""
        extractor = self.extractor
        if extractor is None or not self.is_semantic(name):
            return _nothing
        return lambda gt: extractor(gt).float()


def _nothing(_: Tensor) -> None:
    return None


def open_run(path: Path, device: torch.device, *, wants_classes: bool) -> OpenRun:
    """Load all discriminators of a run.

    Args:
        path: Its folder.
        device: Where the networks will be.
        wants_classes: Build the frozen vision model for a run of plain discriminators too, if that is possible.

    Raises:
        InputError: Weights of a discriminator, or of the semantics that it needs, cannot be loaded.
    """
    run = RunFolder(path)
    config = run.read_config().train
    extractor, missing = None, ""
    if config.is_semantic or wants_classes:
        try:
            extractor = build_extractor(config.semantics, config.data.crop_px).to(device)
        except InputError as error:
            if config.is_semantic:
                raise
            missing = str(error)
    channels = semantic_channels(config.semantics, config.data.crop_px) if config.is_semantic else 0
    networks = {name: load_exported(run, config, channels, name).to(device) for name in config.discriminators}
    return OpenRun(run, config, networks, extractor, missing)
