"""The dry run: the resolved plan of a run, its memory, and where it departs from the paper.

Networks on the meta device; the shards' manifest and initial weights are read and checked if they are there, and
nothing is written.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.checkpoint import CheckpointStore
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.data import WHOLE
from pipeline.config.schema import Preset, TrainConfig
from pipeline.data.datasets import open_datasets
from pipeline.losses import PERCEPTUAL_LOSSES
from pipeline.models.discriminators import Discriminator, initial_discriminator_weights
from pipeline.models.generators import initial_generator_weights
from pipeline.run.backup import backup_of
from pipeline.run.checks import began_with, check_settings, check_shards, resolve_generator
from pipeline.run.hollow import HollowRun, build_hollow, num_parameters
from pipeline.run.memory import estimate_memory
from pipeline.run.paper import departures
from pipeline.run.record import describe_held
from pipeline.run.validation import find_validation_metrics
from pipeline.runtime.launch import launched_world_size
from pipeline.runtime.precision import slow_precision
from pipeline.runtime.surroundings import check_launch
from pipeline.weights.initial import InitialWeights


def describe(preset: Preset) -> str:
    """Return the resolved plan of a run as text.

    Raises:
        ConfigError: The launched processes do not divide the batch, the shards do not fit, a metric of the validation
            is unknown, or the run would refuse its settings, the launcher or the machine.
        InputError: The run's export would replace its initial weights, or these do not fit.
    """
    config = resolve_generator(preset.train, began_with(preset.train))
    preset = replace(preset, train=config)
    per_device = check_launch(config.runtime, config.data.batch_size)
    check_settings(config)
    validation = _validation_lines(config)
    shards = _shard_lines(config)
    world_size = launched_world_size()
    hollow = build_hollow(config)
    size = config.runtime.micro_batch_size
    together = per_device if size == "auto" else min(per_device, size or per_device)
    memory = estimate_memory(config, hollow, together)
    lines = [
        *_network_lines(config, hollow),
        *_schedule_lines(config, world_size, per_device, together),
        f"memory           about {_gib(memory.total_bytes)}: {_gib(memory.state_bytes)} weights, gradients and Adam, "
        f"{_gib(memory.activation_bytes)} activations of the larger update, per device"
        + ("" if config.runtime.precision == "float32" else f" in float32, less in {config.runtime.precision}"),
        *validation,
        *shards,
        *_path_lines(config),
        *(f"not the paper's  {line}" for line in departures(preset)),
    ]
    return "\n".join(lines)


def _network_lines(config: TrainConfig, hollow: HollowRun) -> list[str]:
    generator, discriminators, extractor = hollow.generator, hollow.discriminators, hollow.backbone
    lines = [
        f"generator        {config.generator.architecture} x{config.generator.scale}, "
        f"{num_parameters(generator):,} parameters"
    ]
    if (held := describe_held(config.generator)) is not None:
        lines.append(f"from file        {held}")
    read = functools.partial(initial_generator_weights, config.generator, generator)
    lines += _start_lines(config, "generator", config.generator.initial_file, read)
    lines.append(_loss_line(config))
    if not discriminators:
        return [*lines, "discriminator    none: pixel loss only"]
    for name, discriminator in discriminators.items():
        lines += _discriminator_lines(config, name, discriminator)
    if extractor is not None:
        semantics = config.semantics
        lines += [
            f"semantics        {semantics.architecture} layer {semantics.layer}, {semantics.source}, "
            f"weights {semantics.weights} (frozen){', shuffled' if semantics.shuffled else ''}",
            f"semantic map     {extractor.description}; licence {extractor.model.licence}",
        ]
    if config.losses.perceptual_weight:
        network = PERCEPTUAL_LOSSES[config.losses.perceptual]
        lines.append(
            f"perceptual       {network.description}, {network.num_parameters:,} parameters, weights "
            f"{config.losses.perceptual_weights} (frozen)"
        )
    if config.losses.ldl_weight:
        lines.append(f"LDL              weight {config.losses.ldl_weight:g}, against the averaged generator")
    return lines


def _discriminator_lines(config: TrainConfig, name: str, discriminator: Discriminator) -> list[str]:
    options = config.discriminators[name]
    kind = f"{options.architecture}{' + SeD' if options.semantic else ''}"
    lines = [f"{name:<16} {kind}, {num_parameters(discriminator):,} parameters"]
    if options.initial_weights is not None:
        read = functools.partial(initial_discriminator_weights, options, discriminator, name)
        lines += _start_lines(config, name, options.initial_weights, read)
    return [*lines, *(f"{title:<16} {text}" for title, text in options.details.items())]


def _start_lines(config: TrainConfig, name: str, file: Path | None, read: Callable[[], InitialWeights]) -> list[str]:
    """Say what a network starts from; a file that the run will read is read, and refused, if it is there."""
    if file is None:
        return ["start            random weights"]
    left_out = read().left_out if file.exists() and name not in _restored(config) else ()
    counts = "".join(f": {line}" for line in left_out[:1])
    return [f"start            weights of {file}{counts}", *(f"left out         {line}" for line in left_out[1:])]


def _restored(config: TrainConfig) -> set[str]:
    """Return the networks that a checkpoint will restore: of the run folder, else of the backup, which holds all."""
    groups = CheckpointStore(RunFolder(config.run_dir).checkpoints).groups()
    is_in_backup = not groups and (backup := backup_of(config)) is not None and backup.positions()
    return {"generator", *config.discriminators} if is_in_backup else groups


def _backup_lines(config: TrainConfig) -> list[str]:
    backup = backup_of(config)
    if backup is None:
        return []
    positions = backup.positions()
    held = f"{len(positions)} checkpoint(s), the newest at {positions[-1]:,} images" if positions else "no checkpoint"
    return [f"backup           {config.report.backup}: {held}"]


def _schedule_lines(config: TrainConfig, world_size: int, per_device: int, together: int) -> list[str]:
    schedule, batch = config.schedule, config.data.batch_size
    total = config.num_steps * batch
    pixel_steps = math.ceil(min(schedule.pixel_only_images, schedule.total_images) / batch)
    return [
        f"images per step  {batch} = {world_size} process(es) x {per_device}, HR crops of {config.data.crop_px} px"
        + (f"; {together} at a time" if together < per_device else "")
        + ("; as many at a time as fit in memory" if config.runtime.micro_batch_size == "auto" else ""),
        f"steps            {config.num_steps:,} = {total:,} images; pixel stage of {pixel_steps:,} steps"
        + ("" if config.is_adversarial else " (no adversarial stage)"),
        *_augmentation_lines(config),
        *_turn_lines(config),
        *_learning_rate_lines(config),
        f"optimizers       {f'AdamW, decay {schedule.weight_decay:g}' if schedule.weight_decay else 'Adam'}, "
        f"betas {schedule.betas[0]:g} and {schedule.betas[1]:g}, "
        + (f"gradients clipped to {schedule.gradient_clip_norm:g}" if schedule.gradient_clip_norm else "no clipping"),
        "average          "
        + (
            f"half-life of {schedule.ema_half_life_images:,g} images, decay {schedule.ema_decay(batch):.4g} per step"
            if schedule.ema_half_life_images
            else "none"
        ),
        f"precision        {config.runtime.precision}",
        *filter(None, [slow_precision(config.runtime.precision)]),
    ]


def _learning_rate_lines(config: TrainConfig) -> list[str]:
    schedule, total = config.schedule, config.num_steps * config.data.batch_size
    first, warmup = schedule.pixel_only_images, schedule.learning_rate_warmup_images
    offset = first if schedule.discriminator_clock == "own" else 0

    def text(network: int, start: int, first: int) -> str:
        positions = [start + warmup, *(start + at for at in schedule.milestones_images)]
        rates = [f"{schedule.learning_rates(at)[network]:.3g} from {at:,}" for at in positions if first <= at < total]
        rise = f"rising over {warmup:,} images to " if warmup else ""
        fall = f", then by a cosine to 0 at {total:,}" if schedule.learning_rate_decay == "cosine" else ""
        return f"{rise}{', '.join(rates)} images{fall}"

    lines = [f"learning rate    {text(0, 0, 0)} (generator)"]
    if not config.is_adversarial:
        return lines
    return [*lines, f"learning rate    {text(1, offset, first)} (discriminator)"]


def _loss_line(config: TrainConfig) -> str:
    losses = config.losses
    terms = [f"{losses.pixel} x {losses.pixel_weight:g}"]
    if config.is_adversarial:
        weights = {f"perceptual {losses.perceptual}": losses.perceptual_weight, "ldl": losses.ldl_weight}
        weights |= {**losses.extra, f"adversarial {losses.adversarial}": losses.adversarial_weight}
        further = enumerate(config.further_discriminators, start=2)
        weights |= {f"adversarial_{number}": one.adversarial_weight for number, one in further}
        weights |= {"r1 (approximate)": losses.r1_weight, "r2 (approximate)": losses.r2_weight}
        terms += [f"{name} x {weight:g}" for name, weight in weights.items() if weight]
    return f"losses           {', '.join(terms)}"


def _shard_lines(config: TrainConfig) -> list[str]:
    """Check the shards if they exist; `_path_lines` marks what does not exist yet."""
    if not all((folder / "manifest.json").exists() for folder in config.data.shares):
        return []
    datasets = open_datasets(config.data)
    check_shards(config, datasets)
    if len(datasets.members) == 1:
        (dataset,) = datasets.members
        images = dataset.manifest.images
        return [
            f"shards           {dataset.manifest.num_samples:,} samples of {images.sub_image_px} px at scale "
            f"{images.scale}: scale and crop fit"
        ]
    total = config.num_steps * config.data.batch_size
    return [
        f"shards           {dataset.description}, read "
        f"{total * dataset.thousandths / WHOLE / dataset.manifest.num_samples:.2f} times"
        for dataset in datasets.members
    ]


def _validation_lines(config: TrainConfig) -> list[str]:
    metrics, patience = find_validation_metrics(config), config.schedule.stop_after_no_improvement_images
    if not config.report.validation_sets:
        return []
    names, every = ", ".join(metrics.chosen), config.report.validate_every_images
    keeps = f"; keeps the best by {metrics.criterion.name}" if metrics.criterion is not None else ""
    ends = f", ends when it is {patience:,} images old" if patience else ""
    return [
        f"validation       {names} every {every:,} images{keeps}{ends}",
        *(f"not computed     {name}: needs {needs}" for name, needs in metrics.not_computed.items()),
    ]


def _augmentation_lines(config: TrainConfig) -> list[str]:
    names = ("none", "CutBlur", "MixUp", "CutMix")
    chances = zip(names, config.data.augmentation.probabilities, strict=True)
    text = ", ".join(f"{name} {chance:g}" for name, chance in chances if chance)
    return [f"augmentation     {text} of the samples"] if config.data.augmentation.is_used else []


def _turn_lines(config: TrainConfig) -> list[str]:
    schedule = config.schedule
    warmup, every = schedule.discriminator_warmup_images, schedule.generator_every_steps
    limit = schedule.discriminator_max_accuracy
    turns = [
        f"discriminator warm-up of {warmup:,} images" if warmup else "",
        f"the generator updates in one of {every} steps" if every > 1 else "",
        f"the discriminator rests while its accuracy is above {limit:g}" if limit else "",
    ]
    found = ", then ".join(turn for turn in turns if turn)
    return [f"turns            {found}"] if found and config.is_adversarial else []


def _path_lines(config: TrainConfig) -> list[str]:
    folder = RunFolder(config.run_dir)
    reads = [(folder, folder / "manifest.json") for folder in config.data.shares]
    if config.uses_semantics and config.semantics.source != "online":
        reads.append((config.semantics.cache, config.semantics.cache / "manifest.json"))
    reads += [(path, path) for path in config.report.validation_sets]
    starts = {"generator": config.generator.initial_file}
    if config.is_adversarial:
        starts |= {name: options.initial_weights for name, options in config.discriminators.items()}
    restored = _restored(config)
    reads += [(file, file) for name, file in starts.items() if file is not None and name not in restored]
    return [
        *(f"reads            {path}{'' if mark.exists() else '  (not there yet)'}" for path, mark in reads),
        f"writes           {folder.path}: {folder.metrics.name}, {folder.checkpoints.name}/, "
        f"{folder.generator.relative_to(folder.path)}; MLflow experiment {config.report.experiment!r}",
        *_backup_lines(config),
    ]


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB"
