"""Writes `tests/old/c7a254d/`: one small artifact of every kind that commit c7a254d left on people's disks.

Runs at that commit, not at this one, and is kept to show where the archives come from:

    git worktree add /tmp/c7 c7a254d
    PYTHONPATH=/tmp/c7:/tmp/c7/tests python tests/old/make.py tests/old/c7a254d

Paths inside are relative to the working folder, as a user's are who trains in a checkout; only MLflow's database
holds absolute ones, because MLflow does.
"""

# ruff: noqa: I001 - the imports are those of another commit

from __future__ import annotations

import dataclasses
import hashlib
import json
import lzma
import os
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
from harness import photo, structure, tiny_preset, to_plain, write_shards
from PIL import Image
from safetensors.torch import save_file
from sessions import run_session

import pipeline.checkpoint.store
import pipeline.session
from jobs import evaluate, promote, upscale
from pipeline.build import build_extractor
from pipeline.config import Preset
from pipeline.data.features import FeatureStore, image_manifest
from pipeline.data.samples import SamplePlan, TrainingSamples, collate
from pipeline.degrade import degrade
from pipeline.feature_cache import FeatureTask, feature_identity, write_features
from pipeline.models.semantics import build_backbone
from shards.documents import digest_of
from shards.manifest import Manifest, write_manifest

WORK = Path("/tmp/sed-trainer-c7a254d")
INTERRUPTED_AT_IMAGES = 16
NAME = "old-model"
# Checkpoint tensors are little-endian float32: byte lanes of four compress best.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 2, "pb": 2}]


def write_photos(folder: Path, sizes_px: list[tuple[int, int]]) -> None:
    """The tests' photos in eight levels: they have edges, and compress."""
    folder.mkdir(parents=True)
    for number, (height_px, width_px) in enumerate(sizes_px):
        image = photo(number, height_px, width_px) // 32 * 32
        Image.fromarray(image).save(folder / f"photo{number}.png")


def write_extractor_weights(path: Path) -> None:
    """CLIP RN50 up to its first stage, each weight plus or minus one value: a real file that compresses."""
    rng = np.random.RandomState(0)
    tensors = {}
    for name, tensor in build_backbone("clip-rn50", 1).state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        values = np.ones(tensor.shape, np.float32) * (0.0 if name.endswith(("bias", "running_mean")) else 1.0)
        if tensor.ndim >= 2:
            fan_in = int(np.prod(tensor.shape[1:]))
            values = (rng.randint(0, 2, tensor.shape) * 2 - 1).astype(np.float32) * np.float32((2 / fan_in) ** 0.5)
        tensors[name] = torch.from_numpy(values)
    save_file(tensors, path)


def preset() -> Preset:
    plain = to_plain(
        tiny_preset(
            Path(),
            **{
                "data.crop_px": 32,
                "data.canvas_px": 48,
                "generator.num_features": 8,
                "discriminator.num_features": 2,
                "semantics.source": "cached",
                "semantics.weights": "extractor.safetensors",
                "report.keep_checkpoints": 2,
                "report.experiment": "old",
            },
        )
    )
    plain["shards"] |= {"sub_image_px": 48, "stride_px": 32, "shard_size_mib": 0.02}
    return structure(plain, Preset, "old preset")


def write_cache(config: Preset) -> None:
    images = image_manifest(config.train.data.shards)
    semantics = config.train.semantics
    wanted = feature_identity(images, semantics, build_extractor(semantics), config.train.data.crop_px)
    output = semantics.cache
    output.mkdir()
    entries = tuple(
        write_features(FeatureTask(config.train.data.shards, entry, number, output, semantics, wanted, 0))
        for number, entry in enumerate(images.shards)
    )
    write_manifest(output, Manifest("features", digest_of(wanted.to_header()), wanted.to_header(), entries))


def compressible(name: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Round a discriminator's large tensors to one magnitude each; half a million floats would fill the archive."""

    def rounded(path: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() < 64:
            return tensor
        size = float(tensor.double().square().mean().sqrt())
        if path.startswith("exp_avg_sq/"):
            return torch.full_like(tensor, size)
        return torch.where(tensor < 0, -size, size).to(tensor.dtype)

    return {path: rounded(path, tensor) for path, tensor in tensors.items()} if "discriminator" in name else tensors


def round_what_is_saved() -> None:
    write_tensors, save = pipeline.checkpoint.store._write_tensors, pipeline.session.save
    pipeline.checkpoint.store._write_tensors = lambda path, tensors: write_tensors(
        path, compressible(path.name, dict(tensors))
    )
    pipeline.session.save = lambda tensors, metadata: save(compressible("discriminator", tensors), metadata)


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def record_samples(config: Preset, realworld: Path) -> dict[str, object]:
    """What the readers return, for the test to compare with."""
    data, train = config.train.data, config.train
    samples = TrainingSamples(SamplePlan(data.shards, train.semantics.cache, train.seed, data.crop_px, data.canvas_px))
    items = [samples[position] for position in range(2 * image_manifest(data.shards).num_samples)]
    degraded = TrainingSamples(SamplePlan(realworld, None, train.seed, data.crop_px, data.canvas_px))
    batch = collate([degraded[position] for position in range(4)])
    lq, gt, _ = degrade(batch.hr.float() / 255, batch.degradation)
    np.savez_compressed(
        "degraded.npz",
        lq=(lq * 255).round().byte().numpy(),
        gt=(gt * 255).round().byte().numpy(),
    )
    store = FeatureStore(train.semantics.cache)
    return {
        "samples": [
            {"key": item.key, "hr": sha256(item.hr), "lq": sha256(item.lq), "semantics": sha256(item.semantics)}
            for item in items
        ],
        "realworld_keys": list(batch.keys),
        "num_variants": store.num_variants,
    }


def pack(target: Path, *names: str) -> None:
    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        return None if entry.name.endswith("/.lock") else entry

    with lzma.open(target, "wb", filters=FILTERS) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            archive.add(name, filter=anonymous)
    print(f"{target.name}: {target.stat().st_size / 2**10:.0f} KiB")


def main(output: Path) -> None:
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    os.chdir(WORK)
    os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///mlflow.db"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    round_what_is_saved()
    config = preset()
    write_photos(Path("photos"), [(96, 112), (80, 112), (80, 80)])
    write_photos(Path("validation/HR"), [(48, 56), (40, 44)])
    write_extractor_weights(Path("extractor.safetensors"))
    write_shards(config.shards)
    write_shards(dataclasses.replace(config.shards, output=Path("realworld"), degradation="realworld"))
    write_cache(config)
    facts = record_samples(config, Path("realworld"))

    run_session(config, Path("run"), INTERRUPTED_AT_IMAGES)
    shutil.copytree("run", "interrupted")
    run_session(config, Path("run"))
    shutil.rmtree("run/pictures")
    shutil.rmtree("interrupted/pictures", ignore_errors=True)
    assert promote.main(["run", "--name", NAME, "--sets", "validation"]) == 0
    assert evaluate.main(["run", "--sets", "validation", "--output", "evaluation.json"]) == 0
    Image.open("validation/HR/photo1.png").crop((0, 0, 16, 12)).save("lq.png")
    assert upscale.main(["run", "lq.png", "upscaled.png"]) == 0
    for example in Path("mlruns").rglob("*input_example.json"):
        example.unlink()  # a third of the archive, and MLflow opens a model without it

    facts |= {"made_in": str(WORK), "evaluation": json.loads(Path("evaluation.json").read_text())}
    output.mkdir(parents=True, exist_ok=True)
    pack(output / "data.tar.xz", "shards", "realworld", "features", "validation", "lq.png", "extractor.safetensors")
    pack(output / "runs.tar.xz", "interrupted", "run")
    pack(output / "registry.tar.xz", "mlflow.db", "mlruns")
    (output / "expected.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for name in ("upscaled.png", "degraded.npz"):
        shutil.copyfile(name, output / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
