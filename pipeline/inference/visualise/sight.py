"""What is shown of one discriminator: its pictures, the numbers beside them, and why one is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.errors import CheckpointError
from pipeline.inference.attention import NO_CROSS_ATTENTION, AttendingCrop
from pipeline.inference.visualise.attention_figure import draw_attention
from pipeline.inference.visualise.captions import CONDITIONS, attention_text, decisions_text, features_text, title_of
from pipeline.inference.visualise.decision_figure import DecidedPhoto, draw_decisions
from pipeline.inference.visualise.decisions import decide, numbers_of, ordered_share
from pipeline.inference.visualise.feature_figure import draw_features
from pipeline.inference.visualise.features import ClassedCrops, Purities, features_by_condition, purities
from pipeline.inference.visualise.opened import OpenRun
from pipeline.inference.visualise.photos import Photo
from pipeline.inference.visualise.purity import NUM_NEIGHBOURS, permuted_purity
from pipeline.inference.visualise.queries import attend
from pipeline.inference.visualise.tsne import embed
from pipeline.metrics.bootstrap import Interval
from pipeline.progress import say
from shards.format.png import Pixels


@dataclass(frozen=True)
class Material:
    """What all discriminators of a run are shown with.

    Attributes:
        run: The run.
        against: Another run, whose first discriminator's features are compared; None for none.
        photos: The photos.
        crops: Cells with classes, or why there are none.
        queries: Crops with the cells that the user chose; empty: found by a rule.
        seed: Of the classes.
    """

    run: OpenRun
    against: OpenRun | None
    photos: Sequence[Photo]
    crops: ClassedCrops | str
    queries: Sequence[AttendingCrop]
    seed: int


@dataclass(frozen=True)
class Sight:
    """One picture, and what is measured beside it."""

    picture: Pixels
    numbers: Mapping[str, Any]


def look_at(material: Material, name: str) -> dict[str, Sight | str]:
    """Return the sights of a discriminator by `request.PICTURES`, each or why it is not shown.

    Raises:
        CheckpointError: Its logits are not finite.
    """
    say(f"looking at {name}")
    decisions = _decisions(material, name)
    means = [
        mean for sides in decisions.numbers["photos"].values() for each in sides.values() for mean in each.values()
    ]
    if not np.isfinite(means).all():
        raise CheckpointError(
            f"{material.run.folder.discriminator(name)}: its logits are NaN or infinite; the weights are damaged, or "
            "the run that made them diverged"
        )
    return {
        "decisions": decisions,
        "features": _features(material, name),
        "attention": _attention(material, name),
    }


def quick_look(run: OpenRun, photo: Photo) -> dict[str, Pixels]:
    """Return decisions and attention of all discriminators on one photo, by names such as `discriminator/decisions`."""
    material = Material(run, None, [photo], "", [], 0)
    pictures = {}
    for name in run.discriminators:
        sights = {"decisions": _decisions(material, name), "attention": _attention(material, name)}
        pictures |= {f"{name}/{kind}": each.picture for kind, each in sights.items() if isinstance(each, Sight)}
    return pictures


def _decisions(material: Material, name: str) -> Sight:
    run = material.run
    network, look, crop_px = run.discriminators[name], run.look(name), run.crop_px
    decided = [
        DecidedPhoto(
            photo,
            decide(network, look, photo.gt, photo.gt, crop_px),
            decide(network, look, photo.gt, photo.sr, crop_px),
        )
        for photo in material.photos
    ]
    title, text = title_of(run, name, "Decisions"), decisions_text(run, name)
    picture = draw_decisions(title, text, decided, is_numbered=network.logit_stride_px is None)
    loss = run.config.losses.adversarial
    photos = {one.photo.name: numbers_of(one.hr, one.sr, loss) for one in decided}
    ordered = {one.photo.name: ordered_share(one.hr, one.sr) for one in decided}
    return Sight(picture, {"loss": loss, "photos": photos, "hr_above_sr": ordered})


def _features(material: Material, name: str) -> Sight | str:
    run, crops = material.run, material.crops
    if not run.discriminators[name].features_layer:
        return f"the {run.config.discriminators[name].architecture} discriminator has no features_layer"
    if isinstance(crops, str):
        return crops
    features = _compared_features(material, name, crops)
    found = purities(crops, features)
    permuted = permuted_purity(crops.class_of_chosen)
    say(f"t-SNE of {len(crops.chosen)} cells under {len(features)} condition(s)")
    words = {condition: CONDITIONS.get(condition, condition) for condition in features}
    num_classes = int(crops.classes.max()) + 1
    picture = draw_features(
        title_of(run, name, "Features"),
        features_text(run, name, found, num_classes, permuted, material.seed),
        crops,
        {words[condition]: embed(each) for condition, each in features.items()},
        {words[condition]: found.mean(condition) for condition in features},
    )
    return Sight(picture, _purity_numbers(material, name, crops, found, permuted))


def _compared_features(material: Material, name: str, crops: ClassedCrops) -> dict[str, Float[ndarray, "cells c"]]:
    """Return the features by condition, and those of the other run's first discriminator under its own."""
    features = features_by_condition(material.run, name, crops)
    if (other := material.against) is not None and other.discriminators["discriminator"].features_layer:
        own, *_ = features_by_condition(other, "discriminator", crops).values()
        features[f"of {other.folder.path.resolve().name}"] = own
    return features


def _purity_numbers(
    material: Material, name: str, crops: ClassedCrops, found: Purities, permuted: float
) -> dict[str, Any]:
    photos = [photo.name for photo in material.photos]
    return {
        "layer": material.run.discriminators[name].features_layer,
        "classes_from": "" if material.run.extractor is None else material.run.extractor.description,
        "num_classes": int(crops.classes.max()) + 1,
        "num_cells": len(crops.chosen),
        "num_neighbours": NUM_NEIGHBOURS,
        "purity": {
            condition: _ends(found.mean(condition)) | {"photos": dict(zip(photos, values, strict=True))}
            for condition, values in found.by_condition.items()
        },
        "purity_of_permuted_classes": permuted,
        "purity_of_classes_map": dict(zip(photos, found.of_semantics, strict=True)),
        "difference_to": {condition: _ends(interval) for condition, interval in found.differences().items()},
    }


def _ends(interval: Interval | None) -> dict[str, Any]:
    return {} if interval is None else {"mean": interval.mean, "interval": [interval.low, interval.high]}


def _attention(material: Material, name: str) -> Sight | str:
    run = material.run
    if run.extractor is None or not run.is_semantic(name):
        return "it is not semantic-aware, so it has no attention"
    queries = attend(run.discriminators[name], run.extractor, material.photos, material.queries, run.crop_px)
    if not queries:
        return NO_CROSS_ATTENTION
    text = attention_text(run, is_chosen=bool(material.queries))
    numbers = [
        {
            "photo": crop.photo,
            "crop_px": [crop.window.left_px, crop.window.top_px, crop.window.side_px],
            "cell": [cell.row, cell.column],
            "share_of_strongest_tenth": cell.share,
            "is_almost_even": cell.is_almost_even,
        }
        for crop, cell in queries
    ]
    return Sight(draw_attention(title_of(run, name, "Attention"), text, queries), {"queries": numbers})
