"""What a version's card, picture and tags say of a run folder, and of a file of which nothing is known."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from harness import tiny_preset, write_photos, write_shards
from mlflow import MlflowClient
from PIL import Image
from untrained_runs import write_run

from pipeline.data.evaluation import digest_of_sets
from pipeline.inference.lineage import NOT_KNOWN, lineage_of
from pipeline.inference.model_card import PICTURE
from pipeline.inference.named_model import open_model
from pipeline.inference.promotion import parse_rule, promote
from pipeline.models.generators import load_generator, save_generator
from pipeline.tracking import registry
from shards.format.manifest import Manifest

NAME = "carded"
RULE = parse_rule("spectrum", "psnr_y=-0.5")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Shards, a validation set, and a run that says it was trained on them."""
    write_photos(tmp_path / "photos", [(160, 176)])
    write_photos(tmp_path / "validation" / "HR", [(64, 72), (48, 56)])
    manifest = write_shards(tiny_preset(tmp_path).shards)
    data = {"data.shards": str(tmp_path / "shards"), "losses.perceptual_weight": 1.0}
    run = write_run(tmp_path / "run", **data)
    metadata = {"image_manifest": manifest.digest, "images_seen": "24"}
    save_generator(run.generator, load_generator(run.generator), metadata)
    return manifest


def test_card_of_a_run_says_how_it_was_trained_on_what_and_how_good_it_is(
    store: str, tmp_path: Path, manifest: Manifest
) -> None:
    text = promote(str(tmp_path / "run"), NAME, [tmp_path / "validation"], RULE, force=True)
    version = MlflowClient(store).get_model_version(NAME, "1")
    folder = registry.fetch(f"{registry.SCHEME}{NAME}/1").parents[1]
    card = (folder / registry.CARD).read_text()
    assert version.description == card
    assert len(card) < 5000
    run = MlflowClient(store).get_run(version.run_id).info
    assert f"[{run.run_id}](#/experiments/{run.experiment_id}/runs/{run.run_id})" in card
    assert "is champion by --force" in text
    for line in (
        "# carded version 1",
        "Version 1 is champion by --force",
        "* architecture: compact, ",
        "* scale: x4",
        "Means over 2 images of validation; `comparison.png` shows the first one.",
        "* images seen: 24",
        "adversarial (vanilla) x 0.0005",
        "* discriminator: patch, semantic-aware",
        "* semantics: open_clip:RN50, layer 1",
        f"* digest: `{manifest.digest}`",
        "classical x4",
        "* semantics open_clip:RN50: none: random weights",
        'mlflow.pyfunc.load_model("models:/carded/1")',
        "http://127.0.0.1:5001/invocations",
    ):
        assert line in card, line
    for metric in RULE.metrics:
        own, bicubic = (float(version.tags[name]) for name in (metric.name, f"bicubic_{metric.name}"))
        row = f"| {metric.label} | {metric.text(own)} | {metric.text(bicubic)} | "
        assert row in card
        assert metric.protocol in card
    assert Image.open(folder / PICTURE).size == (3 * 72 + 2 * 6, 64 + 30)


def test_tags_lead_to_the_data_and_its_sharding(store: str, tmp_path: Path, manifest: Manifest) -> None:
    promote(str(tmp_path / "run"), NAME, [tmp_path / "validation"], RULE, force=True)
    tags = MlflowClient(store).get_model_version(NAME, "1").tags
    assert tags["dataset_digest"] == manifest.digest
    assert tags["datasets"] == "shards"
    assert json.loads(tags["sharding"]) == {"shards": manifest.images.to_plain()}
    assert tags["images_seen"] == "24"
    assert tags["architecture"] == "compact"


def test_evaluation_is_named_by_the_bytes_of_its_images_whatever_the_folder_is_called(tmp_path: Path) -> None:
    write_photos(tmp_path / "one" / "HR", [(64, 72), (48, 56)])
    digest = digest_of_sets([tmp_path / "one"], 4)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert digest_of_sets([tmp_path / "two"], 4) == digest
    (tmp_path / "two" / "LRx4").mkdir()
    file = next((tmp_path / "two" / "HR").iterdir())
    Image.open(file).resize((18, 16)).save(tmp_path / "two" / "LRx4" / file.name)
    assert digest_of_sets([tmp_path / "two"], 4) != digest
    next((tmp_path / "one" / "HR").iterdir()).unlink()
    assert digest_of_sets([tmp_path / "one"], 4) != digest


def test_shards_that_are_others_by_now_are_not_named_as_the_source(tmp_path: Path, manifest: Manifest) -> None:
    known = lineage_of(open_model(str(tmp_path / "run")))
    assert known.data_lines
    shards = dataclasses.replace(tiny_preset(tmp_path).shards, seed=manifest.images.seed + 1, output=tmp_path / "new")
    write_shards(shards)
    (tmp_path / "shards").rename(tmp_path / "moved")
    assert lineage_of(open_model(str(tmp_path / "run"))).sharding == {}
    (tmp_path / "new").rename(tmp_path / "shards")
    found = lineage_of(open_model(str(tmp_path / "run")))
    assert (found.data_lines, found.sharding) == ((), {})
    assert (found.dataset_digest, found.datasets) == (manifest.digest, ("shards",))


def test_licences_are_those_that_libraries_and_packages_state(tmp_path: Path) -> None:
    changes = {
        "semantics.architecture": "timm:resnet18",
        "semantics.weights": "pretrained",
        "losses.perceptual": "efficientnet-lite0",
        "losses.perceptual_weight": 1.0,
        "losses.perceptual_weights": "package",
        "generator.initial_weights": str(tmp_path / "start.safetensors"),
    }
    run = write_run(tmp_path / "run", **changes)
    licences = lineage_of(open_model(str(run.path))).licences
    assert licences["semantics timm:resnet18"] == "apache-2.0"
    assert licences[f"initial weights {tmp_path / 'start.safetensors'}"] == NOT_KNOWN
    (perceptual,) = (value for name, value in licences.items() if name.startswith("perceptual loss"))
    assert perceptual.startswith("Apache-2.0")


def test_card_of_a_file_says_that_nothing_is_recorded(store: str, tmp_path: Path, manifest: Manifest) -> None:
    network = load_generator(tmp_path / "run" / "export" / "generator.safetensors")
    save_generator(tmp_path / "someones.safetensors", network)
    promote(str(tmp_path / "someones.safetensors"), NAME, [tmp_path / "validation"], RULE, force=True)
    version = MlflowClient(store).get_model_version(NAME, "1")
    assert "* settings: not recorded; the model was given as a file" in version.description
    assert "* digest: not recorded" in version.description
    assert not {"dataset_digest", "datasets", "sharding", "images_seen"} & version.tags.keys()
    stored = load_generator(registry.fetch(f"{registry.SCHEME}{NAME}/1")).state_dict()
    assert all(np.array_equal(stored[name], tensor) for name, tensor in network.state_dict().items())
