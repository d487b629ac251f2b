"""Checks of a run that need the data as well as the configuration, before anything is built."""

from __future__ import annotations

from dataclasses import replace

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import TrainConfig
from pipeline.data.evaluation import check_images, check_sets
from pipeline.data.features import has_features
from pipeline.data.samples import check_crop
from pipeline.errors import ConfigError
from pipeline.inference.evaluate import result_names
from shards.format.manifest import Manifest
from shards.format.outputs import check_output_files


def resolve_semantics(config: TrainConfig) -> TrainConfig:
    """Replace `semantics.source = "auto"`: by what the run began with, else cached if there is a cache, else online."""
    semantics = config.semantics
    if semantics.source != "auto" or not config.discriminator.semantic:
        return config
    folder = RunFolder(config.run_dir)
    if folder.config.is_file():
        source = folder.read_config().train.semantics.source
    else:
        source = "cached" if has_features(semantics.cache) else "online"
    return replace(config, semantics=replace(semantics, source=source))


def check_data(config: TrainConfig, manifest: Manifest) -> None:
    """Check the configuration against shards and validation sets.

    Raises:
        ConfigError: The scale is not the shards', `keep_best` is no metric of the validation, or the discriminator
            would meet a generator with random weights.
        InputError: A validation set is missing, empty, or holds an image that cannot be used, or the run's export would
            replace its initial weights.
    """
    check_start(config)
    check_sets(config.report.validation_sets)
    _check_exports(config)
    check_shards(config, manifest)
    check_images(config.report.validation_sets, config.generator.scale)
    _check_best(config)


def check_start(config: TrainConfig) -> None:
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
    starts = (config.generator.initial_file, config.discriminator.initial_weights)
    check_output_files(
        [folder.generator, folder.discriminator],
        [file for file in starts if file is not None],
        is_own=lambda _: True,
        overwrite=False,
    )


def check_shards(config: TrainConfig, manifest: Manifest) -> None:
    """Check scale and crop against the shards.

    Raises:
        ConfigError: The scale is not the shards', or their sub-images are smaller than what a step reads.
    """
    check_crop(config.data, manifest)
    scale = config.generator.scale
    if scale != manifest.images.scale:
        raise ConfigError(
            f"generator.scale={scale}, but the shards in {config.data.shards} were written for scale "
            f"{manifest.images.scale}; use shards of the same scale, or change generator.scale"
        )


def _check_best(config: TrainConfig) -> None:
    best = config.report.keep_best
    sets = [folder.name for folder in config.report.validation_sets]
    known = [*result_names(), *(f"{name}/{metric}" for name in sets for metric in result_names())]
    if best and best.removeprefix("-") not in known:
        raise ConfigError(f"report.keep_best={best!r} is no metric of the validation: {', '.join(known)}")
