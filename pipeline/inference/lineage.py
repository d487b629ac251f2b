"""Where a generator comes from: the run's settings, its data down to the sharding, and licences of what it used.

A run's folder says most; an exported file says which data and how many images; another project's file says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import TrainConfig
from pipeline.data.datasets import Datasets, open_datasets
from pipeline.inference.named_model import NamedModel
from pipeline.losses import PERCEPTUAL_LOSSES
from pipeline.models.generators.spandrel.options import PREFIX, TESTED
from pipeline.models.semantics.extractor import open_vision_model
from pipeline.models.semantics.names import PACKAGE, PRETRAINED, RANDOM
from pipeline.weights.files import read_metadata
from shards.errors import InputError

NOT_KNOWN = "not known here"


@dataclass(frozen=True)
class Lineage:
    """Where a generator comes from; what is not recorded is empty.

    Attributes:
        config: Settings of the run that trained it.
        images_seen: How many images the run had seen.
        dataset_digest: Names its training data down to the last byte.
        datasets: Names of the folders of shards.
        data_lines: One line about each.
        sharding: By dataset, the settings that decided the bytes of its shards, as its manifest records them.
        licences: Of frozen weights that the training used, and of the generator's code.
    """

    config: TrainConfig | None = None
    images_seen: str = ""
    dataset_digest: str = ""
    datasets: tuple[str, ...] = ()
    data_lines: tuple[str, ...] = ()
    sharding: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)

    @property
    def tags(self) -> dict[str, str]:
        """What a version's tags say of it."""
        sharding = json.dumps(self.sharding, sort_keys=True) if self.sharding else ""
        tags = {
            "images_seen": self.images_seen,
            "dataset_digest": self.dataset_digest,
            "datasets": ", ".join(self.datasets),
            "sharding": sharding,
        }
        return {name: value for name, value in tags.items() if value}


def lineage_of(model: NamedModel) -> Lineage:
    """Collect what is known of a model. Shards that are gone, or others by now, are passed over."""
    metadata = read_metadata(model.weights)
    digest, config = metadata.get("image_manifest", ""), _config_of(model.run)
    datasets = None if config is None else _datasets_of(config, digest)
    members = () if datasets is None else datasets.members
    return Lineage(
        config=config,
        images_seen=metadata.get("images_seen", ""),
        dataset_digest=digest,
        datasets=() if config is None else tuple(folder.name for folder in config.data.shares),
        data_lines=() if datasets is None else tuple(datasets.lines),
        sharding={member.folder.name: member.manifest.images.to_plain() for member in members},
        licences={} if config is None else _licences_of(config),
    )


def _config_of(run: RunFolder | None) -> TrainConfig | None:
    try:
        return None if run is None else run.read_config().train
    except InputError:  # a run of an extension that is not imported here, or a copied export without its settings
        return None


def _datasets_of(config: TrainConfig, digest: str) -> Datasets | None:
    """Return the datasets of a run if its shards are where they were, and the same."""
    try:
        datasets = open_datasets(config.data)
    except (InputError, OSError):
        return None
    return datasets if datasets.digest == digest else None


def _licences_of(config: TrainConfig) -> dict[str, str]:
    """Return licences by what they are of."""
    found = {}
    if config.generator.architecture.startswith(PREFIX):
        known = TESTED.get(config.generator.architecture.removeprefix(PREFIX))
        found[f"code of {config.generator.architecture}"] = NOT_KNOWN if known is None else known.licence
    if config.generator.initial_weights is not None:
        found[f"initial weights {config.generator.initial_weights}"] = NOT_KNOWN
    if config.uses_semantics:
        semantics = config.semantics
        found[f"semantics {semantics.architecture}"] = _licence_of(semantics.architecture, semantics.weights)
    if config.uses_perceptual_network:
        network, weights = PERCEPTUAL_LOSSES[config.losses.perceptual].description, config.losses.perceptual_weights
        found[f"perceptual loss, {network}"] = _licence_of("", weights)
    if config.is_adversarial:
        for name, options in config.discriminators.items():
            if options.frozen_weights is not None:
                backbone = str(getattr(options, "backbone", ""))
                found[f"{name}, {backbone or options.architecture}"] = _licence_of(backbone, options.frozen_weights)
    return found


def _licence_of(architecture: str, weights: str) -> str:
    """Return the licence of frozen weights: the package's, or what the library states of its vision model."""
    if weights == RANDOM:
        return "none: random weights"
    if weights == PACKAGE:
        return "Apache-2.0, of the package that holds them"
    if weights != PRETRAINED or not architecture:
        return f"{NOT_KNOWN}: weights {weights}"
    try:
        return open_vision_model(architecture).licence
    except InputError:
        return NOT_KNOWN
