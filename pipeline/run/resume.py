"""Selects and validates the checkpoint to resume from: the same on all ranks, and of the same shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from pipeline.checkpoint import Checkpoint, CheckpointStore, Retention
from pipeline.config.schema import TrainConfig
from pipeline.data.datasets import Datasets
from pipeline.errors import CheckpointError
from pipeline.runtime.backend import Backend
from shards.format.manifest import find_generation, kept_manifest_file


def retention_of(config: TrainConfig, scores: Callable[[], Mapping[int, float]]) -> Retention:
    """Return the configured retention rule.

    Args:
        config: The run's configuration.
        scores: Score of each validation by position, higher is better.
    """
    report, total_images = config.report, config.num_steps * config.data.batch_size
    return Retention(
        newest=report.keep_checkpoints,
        every_images=report.keep_every_images,
        is_scheduled=lambda seen: seen % report.checkpoint_every_images == 0 or seen >= total_images,
        scores=scores,
    )


def newest_checkpoint(
    config: TrainConfig, store: CheckpointStore, datasets: Datasets, backend: Backend
) -> Checkpoint | None:
    """Return the checkpoint to resume from; None for a new run. All ranks must call.

    Raises:
        CheckpointError: All checkpoints are damaged, the ranks see different ones, or the run used other shards.
    """
    checkpoint = store.newest()
    _check_same_position(config, checkpoint.images_seen if checkpoint else 0, backend)
    if checkpoint is not None:
        _check_same_shards(config, checkpoint, datasets)
    return checkpoint


def _check_same_position(config: TrainConfig, images_seen: int, backend: Backend) -> None:
    leaders = backend.sum(torch.tensor(float(images_seen) if backend.is_leader else 0.0))
    if backend.any_rank(int(leaders) != images_seen):
        raise CheckpointError(
            f"the processes do not see the same checkpoints: rank 0 resumes at {int(leaders)} images, "
            f"rank {backend.rank} at {images_seen}; --run-dir {config.run_dir} must be on storage that "
            "all machines share"
        )


def _check_same_shards(config: TrainConfig, checkpoint: Checkpoint, datasets: Datasets) -> None:
    began_with = checkpoint.facts.get("image_manifest") or "unknown"
    if began_with != datasets.digest:
        what = "manifest" if len(datasets.members) == 1 else "manifests and shares"
        raise CheckpointError(
            f"the run in {config.run_dir} was started on other shards than {config.data.shards}"
            f"{' and those of data.mix' if config.data.mix else ''} ({what} {began_with[:12]}, now "
            f"{datasets.digest[:12]}); {_how_to_resume(began_with, datasets)}or start a new run with --run-dir"
        )


def _how_to_resume(digest: str, datasets: Datasets) -> str:
    first, *others = datasets.members
    number = None if others else find_generation(first.folder, first.manifest, digest)
    if number is None:
        return "restore those shards, "
    kept = first.folder / kept_manifest_file(number)
    return f"it was generation {number} of them, before photos were added: copy {kept} over manifest.json, "
