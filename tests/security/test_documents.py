"""Documents of a stranger: whatever stands in their fields, the answer is a clear error, at once, or the data."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from clear_errors import MAX_SECONDS, only_clear_errors
from fuzz import mutations, sealed
from harness import prepare_tiny_data

from pipeline.checkpoint import Checkpoint, CheckpointStore, load_checkpoint
from pipeline.config.plain import to_plain
from pipeline.config.presets import load_resolved
from pipeline.config.schema import Preset
from pipeline.data.damage import DamageTally
from pipeline.data.features import FeatureStore
from pipeline.data.samples import TrainingSamples
from pipeline.errors import CheckpointError
from pipeline.train.report import MetricsFile, RunningMeans
from shards.degradation.crops import Crop
from shards.errors import InputError
from shards.format.documents import digest_of
from shards.format.manifest import Manifest, read_manifest, write_manifest
from shards.format.records import parse_record
from shards.format.settings import FeatureSettings
from shards.format.tars import publish_shard
from shards.read.reader import ShardSet
from shards.read.verification import verify_folder, verify_shard
from shards.write.generations import read_generations

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    return prepare_tiny_data(tmp_path_factory.mktemp("attacked"))


@pytest.fixture
def shards(preset: Preset, tmp_path: Path) -> Path:
    shutil.copytree(Path(str(preset.train.data.shards)), tmp_path / "shards")
    return tmp_path / "shards"


@pytest.fixture
def features(preset: Preset, tmp_path: Path) -> Path:
    images = ShardSet.open(preset.train.data.shards)
    settings = FeatureSettings(images.manifest.digest, 48, 2, "numbers", "0" * 64, (2, 1, 1), "none")
    folder = tmp_path / "features"
    folder.mkdir()
    members = [(f"{images.sample(i).key}.{v:03d}.f16", b"0123") for i in range(len(images)) for v in range(2)]
    entry = publish_shard(folder, "features-000000", members, settings.to_plain())
    write_manifest(folder, Manifest(digest_of(settings.to_plain()), settings, (entry,)))
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    facts = {
        "image_manifest": "ab" * 32,
        "mlflow_run_id": "0" * 32,
        "open_report": {"loss": [1.5, 3.0]},
        "damage": {"total": 1, "epoch": 0, "in_epoch": 1},
        "skipped_updates": {"generator": [1, 0]},
        "validation_due": False,
    }
    return CheckpointStore(tmp_path / "checkpoints").save(Checkpoint(8, {"generator": {"w": torch.ones(2)}}, facts))


def read_images(folder: Path) -> None:
    read_generations(folder)
    images = ShardSet.open(folder)
    for index in {0, len(images) - 1}:
        images.sample(index).record.fault(images.manifest.images)


def verify(folder: Path) -> None:
    contents = verify_folder(folder)
    for entry in contents.shards[:1]:
        verify_shard(folder, entry, contents.settings)


def read_features(folder: Path) -> None:
    store = FeatureStore(folder)
    store.read(0, store.shards.sample(0).key, 1, Crop(0, 0, 48, 0))


def read_checkpoint(folder: Path) -> None:
    facts = load_checkpoint(folder).facts
    RunningMeans().load(facts.get("open_report", {}), CPU, is_leader=True)
    if "damage" in facts:
        DamageTally(8, 0.1).load(facts["damage"])


def fuzz_file(path: Path, read: Callable[[], None], count: int, seed: int) -> None:
    whole = path.read_bytes()
    for what, changed in mutations(json.loads(whole), count, seed):
        path.write_bytes(sealed(changed) if "digest" in changed else json.dumps(changed).encode())
        with only_clear_errors(f"{path.name} {what}"):
            read()
    path.write_bytes(whole)


def fuzz_images(folder: Path, count: int, seed: int) -> None:
    for name in ("manifest.json", "images-000000.json", "plan.json"):
        fuzz_file(folder / name, lambda: read_images(folder), count, seed)
        fuzz_file(folder / name, lambda: verify(folder), count // 3, seed + 1)


def fuzz_record(folder: Path, count: int, seed: int) -> None:
    content = json.loads(ShardSet.open(folder).sample(0).members["json"])
    for what, changed in mutations(content, count, seed):
        with only_clear_errors(f"record {what}"):
            parse_record(json.dumps(changed).encode()).fault(read_manifest(folder).images)


def fuzz_features(folder: Path, count: int, seed: int) -> None:
    for name in ("manifest.json", "features-000000.json"):
        fuzz_file(folder / name, lambda: read_features(folder), count, seed)


def fuzz_checkpoint(folder: Path, count: int, seed: int) -> None:
    fuzz_file(folder / "manifest.json", lambda: read_checkpoint(folder), count, seed)
    manifest, facts = (folder / name for name in ("manifest.json", "facts.json"))
    files = json.loads(manifest.read_bytes())
    for what, changed in mutations(json.loads(facts.read_bytes()), count, seed):
        facts.write_bytes(json.dumps(changed).encode())
        files["files"]["facts.json"] = hashlib.sha256(facts.read_bytes()).hexdigest()
        manifest.write_bytes(sealed(files))
        with only_clear_errors(f"facts {what}"):
            read_checkpoint(folder)


def fuzz_config(preset: Preset, path: Path, count: int, seed: int) -> None:
    for what, changed in mutations(to_plain(preset), count, seed):
        path.write_text(json.dumps(changed))
        with only_clear_errors(f"config {what}"):
            load_resolved(path, Preset)


def fuzz_all(preset: Preset, tmp_path: Path, shards: Path, features: Path, checkpoint: Path, n: int, seed: int) -> None:
    fuzz_images(shards, n, seed)
    fuzz_record(shards, n, seed)
    fuzz_features(features, n, seed)
    fuzz_checkpoint(checkpoint, n, seed)
    fuzz_config(preset, tmp_path / "config.json", n, seed)


def test_documents_when_any_field_is_anything_end_in_a_clear_error(
    preset: Preset, tmp_path: Path, shards: Path, features: Path, checkpoint: Path
) -> None:
    fuzz_all(preset, tmp_path, shards, features, checkpoint, 125, 20)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_documents_when_any_field_is_anything_end_in_a_clear_error_for_long(
    preset: Preset, tmp_path: Path, shards: Path, features: Path, checkpoint: Path, seed: int
) -> None:
    fuzz_all(preset, tmp_path, shards, features, checkpoint, 1500, seed)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", ".hidden", ""])
def test_checkpoint_that_names_a_file_elsewhere_is_damaged(name: str, checkpoint: Path) -> None:
    outside = checkpoint.parent / "outside.safetensors"
    shutil.copyfile(checkpoint / "generator.safetensors", outside)
    content = json.loads((checkpoint / "manifest.json").read_bytes())
    content["files"][name] = hashlib.sha256(outside.read_bytes()).hexdigest()
    (checkpoint / "manifest.json").write_bytes(sealed(content))
    with pytest.raises(CheckpointError, match="must be a plain file name"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a":' * 200_000, b"9" * 10_000, b"\xff\xfe", b"[NaN]", b"[1e999]"])
def test_documents_of_hostile_json_are_refused(text: bytes, shards: Path) -> None:
    (shards / "manifest.json").write_bytes(text)
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        read_manifest(shards)


@pytest.mark.parametrize("name", ["manifest.json", "images-000000.json", "images-000000.tar"])
@pytest.mark.parametrize("target", ["fifo", "/dev/zero", "sparse"])
def test_dataset_with_a_file_that_is_none_is_refused_at_once(name: str, target: str, shards: Path) -> None:
    (shards / name).unlink()
    if target == "fifo":
        os.mkfifo(shards / name)
    elif target == "sparse":
        with (shards / name).open("wb") as stream:
            stream.truncate(2**40)
    else:
        (shards / name).symlink_to(target)
    began_s = time.monotonic()
    if (name, target) != ("images-000000.tar", "sparse"):
        with pytest.raises(InputError):
            read_images(shards)
    with contextlib.suppress(InputError):
        contents = verify_folder(shards)
        found = [fault for entry in contents.shards for fault in verify_shard(shards, entry, contents.settings)]
        assert name in {fault.file for fault in [*contents.faults, *found]}
    assert time.monotonic() - began_s < MAX_SECONDS


def test_kinds_that_training_refuses_are_faults_of_verify(preset: Preset, shards: Path) -> None:
    manifest = json.loads((shards / "manifest.json").read_bytes())
    # Classical shards have their LQ images, and no run reads their recipe.
    unknown_recipe = manifest["config"] | {"degradation": "realworld", "recipe": "gone-9"}
    for changes in ({"kind": "plan"}, {"kind": "features"}, {"config": unknown_recipe}):
        (shards / "manifest.json").write_bytes(sealed(manifest | changes))
        with pytest.raises(InputError):
            TrainingSamples(dataclasses.replace(preset.train.data, shards=shards), 0)
        assert verify_folder(shards).faults, changes


def test_metrics_file_when_any_field_is_anything_gives_finite_numbers_and_keeps_its_other_lines(tmp_path: Path) -> None:
    good = {"images_seen": 4, "set/psnr_y": 20.5}
    lines = [json.dumps(line).encode() for _, line in mutations(good | {"list": [1]}, 1000, seed=4)]
    lines += [b"\xff\xfe", b"\0" * 40, b"[" * 100_000, b'{"images_seen": 8, "set/psnr_y": ' + b"9" * 5000 + b"}"]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in [*lines, json.dumps(good | {"images_seen": 8}).encode()]))
    file = MetricsFile(path)
    assert file.validations("psnr_y")[8] == 20.5
    for images_seen, values in file.reports():
        assert type(images_seen) is int
        assert all(type(value) in {int, float} and math.isfinite(value) for value in values.values())
    file.rewind(8)
    assert file.reports()[-1] == (8, {"set/psnr_y": 20.5})
