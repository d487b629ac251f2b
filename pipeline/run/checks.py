"""Checks of a run that need the data as well as the configuration, before anything is built."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace

import torch

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import TrainConfig
from pipeline.data.dataset_samples import check_crop
from pipeline.data.datasets import Dataset, Datasets
from pipeline.data.evaluation import check_images, check_sets
from pipeline.data.features import has_features
from pipeline.errors import ConfigError
from pipeline.losses import ADVERSARIAL_LOSSES
from pipeline.metrics import Metric
from pipeline.models.generators import GENERATORS, FromFileOptions
from pipeline.models.generators import resolve_generator as read_options
from pipeline.run.backup import backup_of
from pipeline.runtime.launch import launched_world_size, wants_deepspeed
from shards.format.outputs import check_output_files


def resolve(config: TrainConfig) -> TrainConfig:
    """Replace what a configuration leaves to be found: by what the run began with, else by what is there now.

    That is `semantics.source = "auto"`, and the options of a generator that its file decides.

    Raises:
        CheckpointError: The generator's file cannot be used.
        InputError: The run's backup cannot be read.
    """
    began = began_with(config)
    return resolve_generator(_resolve_semantics(config, began), began)


def began_with(config: TrainConfig) -> TrainConfig | None:
    """Return the configuration that a run began with, as its folder or else its backup has it; None of a new run."""
    folder = RunFolder(config.run_dir)
    if folder.config.is_file():
        return folder.read_config().train
    backup = backup_of(config)
    kept = None if backup is None else backup.config()
    return None if kept is None else kept.train


def _resolve_semantics(config: TrainConfig, began: TrainConfig | None) -> TrainConfig:
    """Replace `semantics.source = "auto"`: what the run began with, else cached if there is a usable cache."""
    semantics = config.semantics
    if semantics.source != "auto" or not config.is_semantic:
        return config
    if began is not None:
        source = began.semantics.source
    else:
        is_possible = has_features(semantics.cache) and config.data.why_not_cached is None
        source = "cached" if is_possible else "online"
    return replace(config, semantics=replace(semantics, source=source))


def resolve_generator(config: TrainConfig, began: TrainConfig | None) -> TrainConfig:
    """Replace the options of a generator that its file decides: by what the run began with, else by what it holds."""
    options = config.generator
    if not options.from_file:
        return config
    if began is not None and began.generator.initial_weights == options.initial_weights:
        # A run of an earlier version, or one whose preset names the file, was never asked to follow it.
        follows = began.generator.from_file or isinstance(options, FromFileOptions)
        return replace(config, generator=began.generator if follows else replace(options, from_file=False))
    return replace(config, generator=read_options(options))


def check_data(config: TrainConfig, datasets: Datasets, metrics: Sequence[Metric]) -> list[str]:
    """Check the configuration against shards and validation sets, and the sets against the metrics of the validation.

    Returns:
        What is lost or assumed of the images of the validation sets, one line each.

    Raises:
        ConfigError: As from `check_settings`, or the scale is not the shards'.
        InputError: As from `check_settings`, or a validation set is missing, empty, or holds an image that cannot be
            used.
    """
    check_settings(config)
    check_sets(config.report.validation_sets)
    check_shards(config, datasets)
    return check_images(config.report.validation_sets, config.generator.scale, metrics)


def check_settings(config: TrainConfig) -> None:
    """Check what needs no data: a dry run refuses what the run would refuse.

    Raises:
        ConfigError: The discriminator would meet a generator with random weights, or this machine and its launcher
            cannot make the step that was asked for.
        InputError: The run's export would replace its initial weights.
    """
    _check_start(config)
    _check_precision(config)
    _check_step(config)
    _check_partners(config)
    _check_exports(config)


def _check_precision(config: TrainConfig) -> None:
    chosen, name = config.runtime.precision, config.generator.architecture
    precisions = GENERATORS[name].precisions
    if chosen not in precisions:
        raise ConfigError(
            f"runtime.precision={chosen}: the generator {name} trains in {' or '.join(precisions)}; set "
            f"--runtime.precision {precisions[-1]}"
        )


def _check_step(config: TrainConfig) -> None:
    """Check that the processes that were launched can make the kind of step that the preset asks for."""
    runtime, num_processes, uses_deepspeed = config.runtime, launched_world_size(), wants_deepspeed()
    has_gpu = torch.cuda.is_available()
    if runtime.cuda_graphs and (not has_gpu or num_processes > 1 or uses_deepspeed):
        this = f"{num_processes} process(es) on a {'GPU' if has_gpu else 'CPU'}{' under DeepSpeed' * uses_deepspeed}"
        raise ConfigError(
            f"runtime.cuda_graphs=true is for one process on a GPU, without DeepSpeed; this is {this}; "
            "set --runtime.no-cuda-graphs"
        )
    compiler = os.environ.get("CXX", "g++")
    if runtime.compile and not has_gpu and shutil.which(compiler) is None:
        raise ConfigError(
            f"runtime.compile=true needs a C++ compiler on a CPU, and {compiler} is not there; install it (Debian: apt "
            "install g++), name another one in CXX, or set --runtime.no-compile"
        )
    losses = config.losses
    needs_both = ADVERSARIAL_LOSSES[losses.adversarial].needs_real_logits or losses.r1_weight or losses.r2_weight
    cannot_share = needs_both or uses_deepspeed or config.further_discriminators
    if runtime.discriminator_pass == "shared" and config.is_adversarial and cannot_share:
        raise ConfigError(
            "runtime.discriminator_pass='shared' works neither under DeepSpeed nor with a relativistic loss, a "
            "gradient penalty (losses.r1_weight, losses.r2_weight) or further_discriminators; set "
            "--runtime.discriminator-pass separate"
        )


def _check_partners(config: TrainConfig) -> None:
    """Check that a sample and its partner are always on one rank."""
    share = config.data.batch_size // launched_world_size()
    if share % 2 == 0:
        return
    number = (
        "which needs an even number of images per process; "
        f"data.batch_size={config.data.batch_size} over {launched_world_size()} process(es) is {share}; change one of "
        "them, or set"
    )
    if config.data.augmentation.uses_partner:
        raise ConfigError(
            f"data.augmentation mixes neighbouring samples, {number} mixup_probability and cutmix_probability to 0"
        )
    if config.uses_semantics and config.semantics.shuffled:
        raise ConfigError(
            f"semantics.shuffled exchanges those of neighbouring samples, {number} semantics.shuffled=false"
        )


def _check_start(config: TrainConfig) -> None:
    """Check that a new run's discriminator does not train against a generator with random weights unintentionally.

    Raises:
        ConfigError: There are neither initial weights nor a pixel stage; names the alternatives.
    """
    if not config.is_adversarial or config.schedule.pixel_only_images or config.generator.initial_weights is not None:
        return
    if RunFolder(config.run_dir).config.is_file():
        return  # started by an earlier version
    raise ConfigError(
        "the discriminator would train from the first step against a generator with random weights, and the paper "
        "starts from one trained on pixels; name that file with --generator.initial-weights FILE (the export of a PSNR "
        "preset, such as rrdb_psnr_x4), or give this run a pixel stage with --schedule.pixel-only-images N; "
        "--generator.initial-weights random overrides this check"
    )


def _check_exports(config: TrainConfig) -> None:
    folder = RunFolder(config.run_dir)
    discriminators = config.discriminators
    starts = (config.generator.initial_file, *(options.initial_weights for options in discriminators.values()))
    check_output_files(
        [folder.generator, *map(folder.discriminator, discriminators)],
        [file for file in starts if file is not None],
        is_own=lambda _: True,
        overwrite=False,
    )


def check_shards(config: TrainConfig, datasets: Datasets) -> None:
    """Check scale, crop and augmentations against the shards.

    Raises:
        ConfigError: The scale is not that of all shards, or CutBlur would change nothing.
        InputError: The crop or canvas does not fit the sub-images.
    """
    for dataset in datasets.members:
        check_crop(config.data, dataset)
        _check_scale(config, dataset)
    kinds = {dataset.manifest.images.degradation for dataset in datasets.members}
    if config.data.augmentation.cutblur_probability and kinds == {"classical"}:
        raise ConfigError(
            "data.augmentation.cutblur_probability: CutBlur replaces parts of LQ by HR shrunk with MATLAB's bicubic, "
            f"and LQ of the classical shards in {config.data.shards} is just that; set it to 0"
        )


def _check_scale(config: TrainConfig, dataset: Dataset) -> None:
    options, wanted = config.generator, dataset.manifest.images.scale
    if options.scale == wanted:
        return
    if options.from_file:
        raise ConfigError(
            f"generator.initial_weights: {options.initial_file} holds {options.architecture} for x{options.scale}, but "
            f"the shards in {dataset.folder} were written for x{wanted}; use a file for x{wanted}, shards for "
            f"x{options.scale} (python jobs/shard.py --scale {options.scale}), or what fits of the file: name the "
            "network with --generator.architecture and add --generator.initial-weights-partial"
        )
    raise ConfigError(
        f"generator.scale={options.scale}, but the shards in {dataset.folder} were written for scale {wanted}; use "
        "shards of the same scale, or change generator.scale"
    )
