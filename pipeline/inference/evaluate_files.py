"""Evaluates models that a user names, and writes the requested files: the JSON document, a table, a picture, a figure.

In several processes, started by accelerate or torchrun, each evaluates its share of the images; the leader writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.config.running import RuntimeConfig
from pipeline.data.evaluation import EvaluationPair, passed_over_in_sets, read_pair, set_files, set_images
from pipeline.data.layouts import SetImage
from pipeline.inference.evaluate import Evaluated, Ranks, measure_set
from pipeline.inference.evaluation_report import EvaluatedModel, EvaluationReport, is_evaluation, is_image_table
from pipeline.inference.figure import check_figure, is_figure, write_figure
from pipeline.inference.named_model import NamedModel, open_model
from pipeline.inference.pictures import OURS, before_and_after, is_picture_of, write_png
from pipeline.metrics import Metric
from pipeline.metrics.choice import choose_metrics
from pipeline.progress import Progress, say
from pipeline.runtime.backend import Backend
from pipeline.runtime.launch import launched_world_size
from shards.errors import InputError
from shards.format.files import check_writable, clean_stale_kind, sha256_of, write_atomically
from shards.format.outputs import check_output_files
from shards.format.storage import parse_local_path

_JOB = "evaluate"
_RUNTIME = RuntimeConfig(
    precision="float32", channels_last=False, compile=False, discriminator_pass="separate", deterministic=False
)


@dataclass(frozen=True)
class EvaluationFiles:
    """Where the results go.

    Attributes:
        document: The JSON document.
        table: CSV of one line per model and image; None for none.
        picture: PNG of every image next to bicubic and HR; None for none.
        figure: PNG or SVG of perception against distortion; None for none.
    """

    document: Path
    table: Path | None
    picture: Path | None
    figure: Path | None

    def check(self, inputs: Iterable[Path], *, overwrite: bool) -> None:
        """Check that they can be written, before any work.

        Raises:
            InputError: One is an input, another program's file (without `overwrite`), or in a read-only folder; or a
                picture is requested in several processes.
        """
        if self.picture is not None and launched_world_size() > 1:
            raise InputError(
                f"--picture shows every image, and each of {launched_world_size()} processes has only its share of "
                "them; draw the picture in a call of one process"
            )
        check_output_files(
            self._given,
            inputs,
            is_own=_is_own,
            overwrite=overwrite,
        )
        for path in self._given:
            check_writable(path.parent)

    @property
    def _given(self) -> list[Path]:
        return [path for path in (self.document, self.table, self.picture, self.figure) if path is not None]

    def write(self, report: EvaluationReport) -> None:
        """Write them all; no picture where no image could be used. What a killed call left of them goes."""
        for path in self._given:
            clean_stale_kind(path.parent, path.name)
        report.write(self.document)
        if self.table is not None:
            self.table.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.table, report.csv())
        if self.picture is not None and report.pictured:
            labels = OURS if len(report.models) == 1 else [model.label for model in report.models]
            write_png(self.picture, before_and_after(report.pictured, labels), job=_JOB)
            say(f"picture: {self.picture}")
        if self.figure is not None:
            write_figure(self.figure, report)
            say(f"figure: {self.figure}")


def _is_own(path: Path) -> bool:
    return is_evaluation(path) or is_image_table(path) or is_picture_of(path, _JOB) or is_figure(path)


def evaluate_models(
    names: Mapping[str, str], sets: Sequence[Path], metrics: Sequence[str], files: EvaluationFiles, *, overwrite: bool
) -> EvaluationReport | None:
    """Evaluate models on sets, after checking that every requested metric and file is possible; writes nothing.

    Each image is read once, by one rank, however many models there are. All ranks must call.

    Args:
        names: Models as users name them, by label; see `label_models`.
        sets: Checked evaluation sets.
        metrics: Names of metrics.
        files: Where the results will go.
        overwrite: See `EvaluationFiles.check`.

    Returns:
        The results, on the leader; None on the other ranks.

    Raises:
        CheckpointError: A model cannot be loaded.
        InputError: Models are of different scales, a metric is unknown, none can be computed, or a file cannot be
            written.
        RankLostError: Another process died or hangs.
    """
    files.check([*map(parse_local_path, names.values()), *set_files(sets)], overwrite=overwrite)
    backend = Backend(_RUNTIME, batch_size=launched_world_size())
    chosen, not_computed = choose_metrics(metrics, backend.any_rank_of_each)
    if files.figure is not None:
        check_figure(files.figure, chosen)
    models = [open_model(name, unfinished=True) for name in names.values()]
    scale = _common_scale(names, models)
    report = EvaluationReport(_reported(names, models, backend), scale, chosen, not_computed)
    if backend.is_leader:
        _introduce(models, sets, backend)
    with backend.naming_lost_ranks():
        _measure(report, models, sets, backend, keeps_images=files.picture is not None)
        backend.close()
    return report if backend.is_leader else None


def _measure(
    report: EvaluationReport,
    models: Sequence[NamedModel],
    sets: Sequence[Path],
    backend: Backend,
    *,
    keeps_images: bool,
) -> None:
    """Fill the report; all ranks must call."""

    def keep(_: str, evaluated: list[Evaluated]) -> None:
        if keeps_images:
            report.pictured.append(evaluated)

    def total(values: np.ndarray) -> np.ndarray:
        return backend.sum(torch.from_numpy(values)).numpy()

    generators = [model.generator.to(backend.device) for model in models]
    num_images = sum(len(set_images(folder, report.scale)) for folder in sets)
    bar = Progress("evaluating", num_images, "images") if backend.is_leader else None
    with bar or contextlib.nullcontext():
        for folder in sets:
            results = measure_set(
                generators,
                folder,
                report.scale,
                report.metrics,
                ranks=Ranks(backend.rank, backend.world_size, total),
                read=_read_usable,
                keep=keep,
                # So that no rank waits for another at the end for longer than an image takes.
                meet=backend.barrier,
                advance=lambda count: None if bar is None else bar.advance(count),
            )
            report.sets[folder.name] = results
            if backend.is_leader:
                report.faults += [_fault_of(image, report.scale, report.metrics) for image in results.unusable]


def _introduce(models: Sequence[NamedModel], sets: Sequence[Path], backend: Backend) -> None:
    if others := passed_over_in_sets(sets):
        say(others)
    for line in [*backend.notes, *(f"generator: {model.weights}" for model in models)]:
        say(line)


def _reported(names: Mapping[str, str], models: Sequence[NamedModel], backend: Backend) -> list[EvaluatedModel]:
    """Return the models by name and hash, which must be the same on all ranks: a run that trains on has new ones."""
    hashes = [sha256_of(model.weights) for model in models]
    numbers = torch.tensor([int(digest[:8], 16) for digest in hashes], dtype=torch.float64)
    is_different = backend.any_rank_of_each((backend.mean(numbers) != numbers).tolist())
    if different := [name for name, is_it in zip(names.values(), is_different, strict=True) if is_it]:
        raise InputError(
            f"{', '.join(different)}: other weights on some rank; is it still training, or another file on another "
            "machine? Name an exported file that all machines have"
        )
    return [EvaluatedModel(name, label, digest) for (label, name), digest in zip(names.items(), hashes, strict=True)]


def _common_scale(names: Mapping[str, str], models: Sequence[NamedModel]) -> int:
    scales = {name: model.scale for name, model in zip(names.values(), models, strict=True)}
    if len(set(scales.values())) > 1:
        listed = "\n  ".join(f"{name}: x{scale}" for name, scale in scales.items())
        raise InputError(f"models of different scales cannot be compared; evaluate each scale by itself:\n  {listed}")
    return models[0].scale


def _read_usable(image: SetImage, scale: int, metrics: Sequence[Metric]) -> EvaluationPair | None:
    try:
        return read_pair(image, scale, metrics)
    except InputError:
        return None


def _fault_of(image: SetImage, scale: int, metrics: Sequence[Metric]) -> str:
    """Read an image that could not be used again, and return why."""
    try:
        read_pair(image, scale, metrics)
    except InputError as error:
        return str(error)
    return f"{image.hr} could not be used by another process; is it the same file on every machine?"
