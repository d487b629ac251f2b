"""Looks at the discriminators of a run, and writes their pictures and numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.inference.device import best_device
from pipeline.inference.named_model import open_model
from pipeline.inference.pictures import is_picture_of, write_png
from pipeline.inference.visualise.features import ClassedCrops, classed_crops
from pipeline.inference.visualise.opened import OpenRun, open_run
from pipeline.inference.visualise.photos import Photo, read_photos
from pipeline.inference.visualise.queries import crops_of_points
from pipeline.inference.visualise.request import JOB, KIND, VisualiseRequest
from pipeline.inference.visualise.sight import Material, Sight, look_at
from pipeline.progress import say
from shards.format.files import clean_stale_kind, sha256_of, write_atomically
from shards.format.png import Pixels


@dataclass(frozen=True)
class Visualised:
    """What became of a request.

    Attributes:
        pictures: By their names in MLflow.
        tables: Lines with the numbers, for people.
        faults: Photos that could not be used, with the reason.
        num_photos: Number of photos, including those.
    """

    pictures: Mapping[str, Pixels]
    tables: Sequence[str]
    faults: Sequence[str]
    num_photos: int


def visualise(request: VisualiseRequest) -> Visualised:
    """Draw and write everything that a run has to show; says what it has not.

    Raises:
        InputError: Weights cannot be loaded, no photo can be used, or a query is outside of its photo.
    """
    device = best_device()
    model = open_model(str(request.run))
    run = open_run(request.run, device, wants_classes=True)
    against = None if request.against is None else open_run(request.against, device, wants_classes=False)
    generator = model.generator.to(device)
    choice = read_photos(request.sets, generator, run.crop_px, request.max_photos, request.query_photo)
    material = Material(
        run=run,
        against=against,
        photos=choice.photos,
        crops=_crops(request, run, choice.photos),
        queries=crops_of_points(choice.photos, request.queries, request.query_photo, run.crop_px),
        seed=request.seed,
    )
    sights = {name: look_at(material, name) for name in run.discriminators}
    pictures = _write(request, sights, _document(request, material, sights, choice.faults))
    tables = [line for name, each in sights.items() for line in _lines(name, each)]
    return Visualised(pictures, tables, choice.faults, len(choice.photos) + len(choice.faults))


def _crops(request: VisualiseRequest, run: OpenRun, photos: Sequence[Photo]) -> ClassedCrops | str:
    if not any(network.features_layer for network in run.discriminators.values()):
        return "no discriminator of the run has a features_layer"
    if run.extractor is None:
        return f"their classes need the frozen vision model of the run's configuration: {run.missing}"
    if len(photos) < 2:
        return "features are compared between photos, and there is one; raise --photos, or name a larger set"
    return classed_crops(
        photos,
        run.extractor,
        run.crop_px,
        num_classes=request.num_classes,
        num_cells=request.num_cells,
        seed=request.seed,
    )


def _write(
    request: VisualiseRequest, sights: Mapping[str, Mapping[str, Sight | str]], document: Mapping[str, Any]
) -> dict[str, Pixels]:
    request.output.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", request.document.name):
        clean_stale_kind(request.output, suffix)
    pictures: dict[str, Pixels] = {}
    for name, each in sights.items():
        for kind, sight in each.items():
            if isinstance(sight, str):
                say(f"{name}: {kind} not shown: {sight}")
                _remove_earlier(request.picture(name, kind))
                continue
            write_png(request.picture(name, kind), sight.picture, job=JOB)
            pictures[f"visualised/{name}_{kind}"] = sight.picture
            say(f"{kind}: {request.picture(name, kind)}")
    write_atomically(request.document, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    say(f"numbers: {request.document}")
    return pictures


def _remove_earlier(path: Path) -> None:
    """Remove a picture of an earlier call, which the numbers would not belong to."""
    if is_picture_of(path, JOB):
        path.unlink()


def _document(
    request: VisualiseRequest,
    material: Material,
    sights: Mapping[str, Mapping[str, Sight | str]],
    faults: Sequence[str],
) -> dict[str, Any]:
    run = material.run
    return {
        "kind": KIND,
        "run": str(request.run),
        "against": None if request.against is None else str(request.against),
        "seed": request.seed,
        "crop_px": run.crop_px,
        "photos": [photo.name for photo in material.photos],
        "faults": list(faults),
        "weights_sha256": {
            "generator": sha256_of(run.folder.generator),
            **{name: sha256_of(run.folder.discriminator(name)) for name in run.discriminators},
        },
        "discriminators": {
            name: {
                "architecture": str(run.config.discriminators[name].architecture),
                "semantic": run.is_semantic(name),
                **{kind: {"not_shown": one} if isinstance(one, str) else one.numbers for kind, one in each.items()},
            }
            for name, each in sights.items()
        },
    }


def _lines(name: str, sights: Mapping[str, Sight | str]) -> list[str]:
    """Return the numbers of a discriminator as lines for people."""
    lines: list[str] = []
    decisions, features = sights["decisions"], sights["features"]
    if isinstance(decisions, Sight):
        lines.append(f"{name}: mean sigmoid of its logits, the share that is right, and where HR's are above SR's")
        for photo, both in decisions.numbers["photos"].items():
            shown = [f"{side.upper()} {one['mean_sigmoid']:.3f}, {one['accuracy']:.0%}" for side, one in both.items()]
            lines.append(f"  {'  '.join(shown)}  {decisions.numbers['hr_above_sr'][photo]:.0%}  {photo}")
    if isinstance(features, Sight):
        lines.append(f"{name}: neighbour purity of its features, mean over photos")
        lines += _purity_lines(features.numbers)
    return lines


def _purity_lines(numbers: Mapping[str, Any]) -> list[str]:
    first = next(iter(numbers["purity"]))
    differences = {f"{first} - {condition}": row for condition, row in numbers["difference_to"].items()}
    lines = []
    for name, row in {**numbers["purity"], **differences}.items():
        low, high = row["interval"]
        lines.append(f"  {row['mean']:.3f} [{low:.3f}, {high:.3f}]  {name}")
    return [*lines, f"  {numbers['purity_of_permuted_classes']:.3f}  permuted classes"]
