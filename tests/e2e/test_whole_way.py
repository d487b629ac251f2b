"""From photos to a registered champion, every step the command that a user types."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import (
    BIN,
    ROOT,
    assert_bad_input,
    job,
    job_environment,
    run_command,
    tiny_preset,
    write_photos,
    write_preset,
)
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline.data.features import FeatureStore
from pipeline.models.generators import load_generator
from shards.format.codecs import DEFAULT_CODEC
from shards.format.manifest import read_manifest

RAY_PORTS = (6379, 8265)


def succeed(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    done = run_command(command, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, shards by Ray, features by Ray, and a run that trained on them."""
    folder = tmp_path_factory.mktemp("way")
    write_photos(folder / "photos", [(160, 176), (128, 200)])
    write_photos(folder / "validation" / "HR", [(64, 72), (60, 50)])
    preset = str(write_preset(tiny_preset(folder), folder / "preset.json"))
    succeed(["python", job("shard.py"), preset], folder)
    succeed(["python", job("cache_features.py"), preset], folder)
    trained = succeed(["accelerate", "launch", job("train_sed.py"), preset], folder)
    assert "cached" in trained.stderr
    assert "seeded random weights" in trained.stderr
    assert "--semantics.weights pretrained" in trained.stderr
    return folder


def test_features_are_bound_to_their_shards_by_hash(folder: Path) -> None:
    images, features = read_manifest(folder / "shards"), read_manifest(folder / "features")
    assert features.kind == "features"
    assert features.features.image_manifest == images.digest
    assert features.features.codec == DEFAULT_CODEC
    assert len(features.features.weights_sha256) == 64
    for shard, image_shard in zip(features.shards, images.shards, strict=True):
        header = json.loads((folder / "features" / f"{shard.name}.json").read_text())["header"]
        assert header["image_shard_sha256"] == image_shard.sha256
    assert FeatureStore(folder / "features").settings.num_variants == 2
    again = succeed(["python", job("cache_features.py"), str(folder / "preset.json")], folder)
    assert f"reusing {len(images.shards)} of {len(images.shards)}" in again.stderr


def test_run_resolves_where_its_semantics_come_from(folder: Path) -> None:
    config = json.loads((folder / "run" / "config.json").read_text())
    assert config["train"]["semantics"]["source"] == "cached"


def test_evaluate_writes_numbers_beside_bicubics_and_a_picture(folder: Path) -> None:
    command = ["python", job("evaluate.py"), "run", "--sets", "validation", "--output", "numbers.json"]
    done = succeed([*command, "--picture", "picture.png"], folder)
    numbers = json.loads((folder / "numbers.json").read_text())["sets"]["validation"]
    shown = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert f"{numbers['mean']['psnr_y']:.2f}" in shown["run"]
    assert f"{numbers['mean']['bicubic_psnr_y']:.2f}" in shown["bicubic"]
    values = [image["psnr_y"] for image in numbers["images"].values()]
    assert numbers["mean"]["psnr_y"] == pytest.approx(np.mean(values))
    last = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["validation/psnr_y"] == pytest.approx(numbers["mean"]["psnr_y"], abs=1e-6)
    assert Image.open(folder / "picture.png").size[0] > 3 * 64


def test_promote_refuses_what_is_worse_than_bicubic_and_the_champion_upscales(folder: Path) -> None:
    promote = ["python", job("promote.py"), "--name", "tiny", "--sets", "validation"]
    # So short a run is no better than bicubic upscaling.
    first = succeed([*promote[:2], "run", *promote[2:], "--force"], folder)
    assert "tiny version 1 is champion by --force" in first.stderr
    again = succeed([*promote[:2], "run", *promote[2:]], folder)
    assert "nothing to do" in again.stderr
    worse = load_file(folder / "run" / "export" / "generator.safetensors")
    save_file({name: value * 3 for name, value in worse.items()}, folder / "worse.safetensors", {"scale": "4"})
    refused = run_command([*promote[:2], "worse.safetensors", *promote[2:]], folder)
    assert_bad_input(refused, "below bicubic upscaling", "nothing was registered")
    succeed(["python", job("upscale.py"), "models:/tiny@champion", "validation/HR/photo1.png", "large.png"], folder)
    large = np.asarray(Image.open(folder / "large.png"))
    small = np.asarray(Image.open(folder / "validation" / "HR" / "photo1.png"))
    generator = load_generator(folder / "run" / "export" / "generator.safetensors")
    with torch.inference_mode():
        expected = generator(torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 255)
    expected_pixels = (expected[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert large.shape == (240, 200, 3)
    assert np.abs(large.astype(int) - expected_pixels.astype(int)).max() <= 1


def test_cache_of_other_weights_is_refused_by_name(folder: Path) -> None:
    command = ["python", job("train_sed.py"), str(folder / "preset.json"), "--run-dir", "refused"]
    done = run_command([*command, "--semantics.seed", "7", "--semantics.source", "cached"], folder)
    assert_bad_input(done, "weights_sha256: the cache has", "jobs/cache_features.py")
    assert not (folder / "refused").exists()


@pytest.fixture
def ray_head(tmp_path: Path) -> Iterator[Path]:
    """`ray start --head` in a folder with the jobs in it, ended afterwards; skipped where its ports are taken."""
    for port in RAY_PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"port {port} is in use; `ray start --head` needs it")
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    # --block keeps it a child of ours, so that ending it ends no other Ray of this machine.
    log = (tmp_path / "ray.log").open("w")
    environment = job_environment(tmp_path)
    head = subprocess.Popen(
        ["bash", "-c", f". {BIN}/activate && exec ray start --head --block --num-cpus 2"],
        cwd=tmp_path,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while "Ray runtime started" not in (tmp_path / "ray.log").read_text():
        assert head.poll() is None, (tmp_path / "ray.log").read_text()
        assert time.monotonic() < deadline, "Ray did not start"
        time.sleep(0.2)
    yield tmp_path
    head.send_signal(signal.SIGTERM)
    try:
        head.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)


def test_ray_job_submit_verbatim_runs_the_demo_preset(ray_head: Path) -> None:
    submitted = subprocess.run(
        ["bash", "-c", f". {BIN}/activate && ray job submit -- python jobs/shard.py"],
        cwd=ray_head,
        env=job_environment(ray_head),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "the Ray cluster at" in submitted.stdout + submitted.stderr
    manifest = read_manifest(ray_head / "demo" / "shards")
    assert manifest.num_samples > 300
    assert manifest.images.degradation == "classical"
