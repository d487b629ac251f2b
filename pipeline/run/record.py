"""What is recorded about a run: facts in its checkpoints, parameters and tags in MLflow, notes for the terminal."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import nn

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.data import WHOLE
from pipeline.config.plain import to_plain
from pipeline.config.schema import TrainConfig
from pipeline.data.datasets import Dataset, Datasets
from pipeline.data.evaluation import passed_over_in_sets
from pipeline.losses import PERCEPTUAL_LOSSES
from pipeline.losses.generator import GeneratorLosses
from pipeline.models.discriminators import Discriminator
from pipeline.models.generators import GeneratorOptions
from pipeline.models.semantics.extractor import FrozenMaps
from pipeline.run.inputs import SemanticSource
from pipeline.runtime.backend import Backend
from pipeline.runtime.precision import slow_precision
from pipeline.tracking import (
    LATEST_UNIX_S,
    Report,
    RunDescription,
    TrackedDataset,
    Trackers,
    keep_description,
    open_trackers,
    source_tags,
)
from pipeline.train.report import MetricsFile
from pipeline.weights.files import hash_weights
from shards.format.files import sha256_of

LEFT_OUT = "initial_weights_left_out"
_STARTED = "%Y-%m-%dT%H:%M:%SZ"
_TIME = "unix_s"
LIBRARIES = ("torch", "torchvision", "accelerate", "deepspeed", "open_clip_torch", "timm", "numpy", "pillow", "mlflow")


def facts_of(
    config: TrainConfig,
    datasets: Datasets,
    backend: Backend,
    resumed: Mapping[str, Any],
    left_out: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return the plain values stored in every checkpoint of the run.

    Args:
        config: The run's configuration.
        datasets: What it trains on.
        backend: Ranks and devices.
        resumed: Facts of the checkpoint that it is resumed from; empty for a new run.
        left_out: By network, what its initial weights and it did not have in common.
    """
    now = datetime.now(timezone.utc).strftime(_STARTED)
    return {
        "image_manifest": datasets.digest,
        "datasets": datasets.lines,
        "seed": config.seed,
        "started": resumed.get("started") if resumed else now,
        LEFT_OUT: left_out,
        "backend": backend.description,
        "python": platform.python_version(),
        "libraries": installed_versions(),
    }


def installed_versions() -> dict[str, str]:
    """Return the versions of the libraries that decide a run's numbers; DeepSpeed is optional."""
    versions: dict[str, str] = {}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def start_tracking(
    config: TrainConfig,
    datasets: Datasets,
    semantics: SemanticSource | None,
    backend: Backend,
    weights: Mapping[str, str],
    left_out: Mapping[str, Sequence[str]],
    started: str | None,
) -> Trackers:
    """Begin to show a run, new or resumed, in the trackers of its configuration; ranks other than 0 show nothing.

    Args:
        config: The run's configuration.
        datasets: What it trains on.
        semantics: Their source.
        backend: Ranks and devices.
        weights: Hashes, by what they are of; see `weight_hashes`.
        left_out: By network, what its initial weights and it did not have in common.
        started: When its first call began, as in its facts.
    """
    if not backend.is_leader:
        return Trackers()
    tags = source_tags() | {
        "image_manifest": datasets.digest,
        "datasets": "\n".join(datasets.lines),
        "backend": backend.description,
        "random_weights": ", ".join(random_networks(config)) or "none",
    }
    launched = {**backend.launch_record, "overruled": "; ".join(backend.notes)}
    tags |= {f"{LEFT_OUT}.{name}": "\n".join(lines) for name, lines in left_out.items()}
    tags |= {f"launch.{name}": str(value) for name, value in flatten(launched).items()}
    tags |= {f"library.{name}": number for name, number in installed_versions().items()}
    tags |= {f"weights_sha256.{name}": digest for name, digest in weights.items()}
    if semantics is not None:
        tags["semantics_weights_sha256"] = semantics.weights_sha256
    inputs = [_as_tracked(dataset) for dataset in datasets.members]
    description = RunDescription(
        config.report.experiment, str(config.run_dir), parameters_of(config), tags, inputs, _unix_s(started)
    )
    folder = RunFolder(config.run_dir)
    description = keep_description(folder.tracking, description)
    return open_trackers(config.report.trackers, description, folder.tracking, lambda: recorded_reports(folder))


def weight_hashes(config: TrainConfig, losses: GeneratorLosses, networks: Mapping[str, nn.Module]) -> dict[str, str]:
    """Return hashes of the weights that a run starts from, and of frozen ones that it is trained with.

    Args:
        config: The run's configuration; files of initial weights that are gone have no hash.
        losses: Its losses, whose networks are frozen.
        networks: Its generator and discriminators, which may hold frozen networks.
    """
    files = {"generator": config.generator.initial_file}
    files |= {name: options.initial_weights for name, options in config.discriminators.items()}
    hashes = {f"{name}_initial": sha256_of(file) for name, file in files.items() if file is not None and file.is_file()}
    states = {term.name: term.loss.state_dict() for term in losses.image if isinstance(term.loss, nn.Module)}
    hashes |= {name: hash_weights(state) for name, state in states.items() if state}
    return hashes | {
        f"{name}_frozen": frozen.weights_sha256 for name, one in networks.items() for frozen in _frozen(one)
    }


def _frozen(network: nn.Module) -> Iterator[FrozenMaps]:
    yield from (module for module in network.modules() if isinstance(module, FrozenMaps))
    if isinstance(network, Discriminator):
        yield from network.frozen_networks


def recorded_reports(folder: RunFolder) -> list[Report]:
    """Return every report and validation of a run, and the load beside each, as its trackers show them."""
    load, reports = MetricsFile(folder.machine).reports(), MetricsFile(folder.metrics).reports()
    times = {images_seen: values.pop(_TIME) for images_seen, values in load if _TIME in values}
    times = {images_seen: unix_s for images_seen, unix_s in times.items() if 0 <= unix_s <= LATEST_UNIX_S}
    return [
        Report(images_seen, values, times.get(images_seen))
        for images_seen, values in sorted([*reports, *load], key=lambda line: line[0])
    ]


def _unix_s(started: str | None) -> float | None:
    if started is None:
        return None
    return datetime.strptime(started, _STARTED).replace(tzinfo=timezone.utc).timestamp()


def _as_tracked(dataset: Dataset) -> TrackedDataset:
    manifest, images = dataset.manifest, dataset.manifest.images
    facts = {
        "samples": manifest.num_samples,
        "shards": len(manifest.shards),
        "rejected_photos": len(manifest.rejects),
        "degradation": images.degradation,
        "scale": images.scale,
        "share": dataset.thousandths / WHOLE,
    }
    return TrackedDataset(dataset.folder.name, manifest.digest, str(dataset.folder), facts)


def parameters_of(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration as flat parameters; a mix is one of them, as MLflow takes no URLs in names."""
    plain = to_plain(config)
    mix = plain["data"].pop("mix")
    text = {"data.mix": ", ".join(f"{share:g} {folder}" for folder, share in mix.items())} if mix else {}
    return flatten(plain) | text


def notes_of(config: TrainConfig, datasets: Datasets, semantics: SemanticSource | None, backend: Backend) -> list[str]:
    """Return the notes to show before the first step, one line each; `start_notes` has those of the networks."""
    lines = [backend.description, *(f"data: {line}" for line in datasets.lines), *backend.notes]
    if note := slow_precision(config.runtime.precision):
        lines.append(note)
    if others := passed_over_in_sets(config.report.validation_sets):
        lines.append(f"validation sets: {others}")
    if semantics is not None:
        lines.append(f"semantics: {semantics.description}")
    if config.uses_perceptual_network:
        network = PERCEPTUAL_LOSSES[config.losses.perceptual].description
        lines.append(f"perceptual loss: {network}, weights {config.losses.perceptual_weights}")
    if names := random_networks(config):
        lines.append(
            f"note: {' and '.join(names)} with seeded random weights, for tests only; for the real ones: "
            "--semantics.weights pretrained --losses.perceptual-weights torchvision (package for EfficientNet), "
            "weights pretrained of a features discriminator"
        )
    return lines


def start_notes(config: TrainConfig, restored: Collection[str], left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what the networks start from, and what is left out of it; nothing of those that a checkpoint restores."""
    files = {"generator": config.generator.initial_weights or "random"}
    if config.is_adversarial:
        starts = {name: options.initial_weights for name, options in config.discriminators.items()}
        files |= {name: file for name, file in starts.items() if file is not None}
    lines = [
        "\n  ".join([f"{name}: initial weights {file}", *left_out.get(name, ())])
        for name, file in files.items()
        if name not in restored
    ]
    held = describe_held(config.generator)
    return lines if held is None else [f"generator: {held}", *lines]


def describe_held(options: GeneratorOptions) -> str | None:
    """Return the network whose architecture, scale and sizes are those of its file; None where the preset says them."""
    if not options.from_file or options.initial_file is None or not options.initial_file.exists():
        return None
    plain, general = to_plain(options), {field.name for field in fields(GeneratorOptions)}
    sizes = ", ".join(f"{name} {value}" for name, value in flatten(plain).items() if name not in general)
    return f"{options.architecture} x{options.scale}, as in the file: {sizes}"


def random_networks(config: TrainConfig) -> list[str]:
    """Return the frozen networks of a run that have random weights."""
    names = []
    if config.uses_semantics and config.semantics.weights == "random":
        names.append("the semantic extractor")
    if config.uses_perceptual_network and config.losses.perceptual_weights == "random":
        names.append("the perceptual network")
    if config.is_adversarial:
        names += (f"the {name}" for name, one in config.discriminators.items() if one.frozen_weights == "random")
    return names


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
