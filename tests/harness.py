"""What several tests need: tiny real datasets, ranks as processes, and jobs as users start them."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from jobs.command_line import PRESETS
from pipeline.config.plain import structure, to_plain
from pipeline.config.schema import Preset, RuntimeConfig
from pipeline.models.generators import SRVGGNetCompact, save_generator
from shards.config import ShardConfig
from shards.format.manifest import Manifest
from shards.write.dataset import survey_and_plan, write
from shards.write.execution import SERIAL
from shards.write.sources import list_folders, name_sources

Main = Callable[[list[str]], int]
"""A job's `main`: arguments to exit code."""

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def small_shard_config(source: Path, output: Path = Path("unused"), **changes: Any) -> ShardConfig:
    """Settings that cut a small photo into many sub-images, in several shards."""
    settings = ShardConfig(
        source=(source,),
        output=output,
        degradation="classical",
        scale=4,
        sub_image_px=64,
        stride_px=32,
        variants=2,
        seed=3,
        shard_size_mib=0.125,
    )
    return dataclasses.replace(settings, **changes)


def photo(seed: int, height_px: int, width_px: int) -> np.ndarray:
    """A picture with edges, gradients and texture, (H, W, 3) uint8; no two seeds alike."""
    rng = np.random.RandomState(seed)
    rows, columns = np.mgrid[0:height_px, 0:width_px].astype(np.float64)
    image = np.zeros((height_px, width_px, 3))
    for _ in range(6):
        angle, period, phase = rng.uniform(0, np.pi), rng.uniform(6, 60), rng.uniform(0, 6)
        wave = np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * 2 * np.pi / period + phase)
        image += np.where(wave > rng.uniform(-0.5, 0.5), 1.0, wave)[..., None] * rng.uniform(-1, 1, 3)
    image += rng.standard_normal(image.shape) * 0.05
    image = (image - image.min()) / (image.max() - image.min())
    return (image * 255).astype(np.uint8)


def write_photos(folder: Path, sizes_px: Sequence[tuple[int, int]]) -> Path:
    """Write one PNG for each size."""
    folder.mkdir(parents=True)
    for number, (height_px, width_px) in enumerate(sizes_px):
        Image.fromarray(photo(number, height_px, width_px)).save(folder / f"photo{number}.png")
    return folder


def write_pairs(config: ShardConfig, folder: Path, photos: Sequence[np.ndarray]) -> ShardConfig:
    """Write photos and their LQ at a quarter of the size, the complement of their pixels, as paired shards."""
    for number, hr in enumerate(photos):
        for side, image in (("HR", hr), ("LR", 255 - hr[::4, ::4])):
            (folder / side).mkdir(exist_ok=True)
            Image.fromarray(image).save(folder / side / f"{number}.png")
    sources = {"source": (folder / "HR",), "lq_source": (folder / "LR",)}
    pairs = dataclasses.replace(config, degradation="paired", output=folder / "paired", **sources)
    write_shards(pairs)
    return pairs


def write_shards(config: ShardConfig) -> Manifest:
    """Write shards in this process, without Ray, by the same functions that the job maps over."""
    files = name_sources(list_folders(config.source), list_folders(config.lq_source), config.scale)
    return write(survey_and_plan(config, files, (), SERIAL, cut=False), config.output, files, SERIAL)


def tiny_preset(folder: Path, **train_changes: Any) -> Preset:
    """The demo preset at a size for tests, all of its paths in `folder`; dotted names change it further."""
    plain = to_plain(PRESETS.load("demo", Preset))
    plain["shards"] |= {
        "source": [str(folder / "photos")],
        "output": str(folder / "shards"),
        "sub_image_px": 64,
        "stride_px": 48,
        "variants": 2,
        "shard_size_mib": 0.05,
        "exclude": [],
    }
    changes = {
        "run_dir": str(folder / "run"),
        "data.shards": str(folder / "shards"),
        "data.crop_px": 48,
        "data.canvas_px": 48,
        "data.batch_size": 4,
        "generator.num_features": 8,
        "generator.num_blocks": 2,
        "generator.initial_weights": None,
        "discriminator.num_features": 8,
        "discriminator.residual": False,
        "semantics.cache": str(folder / "features"),
        "semantics.architecture": "open_clip:RN50",
        "semantics.layer": 1,
        "semantics.weights": "random",
        "losses.pixel_weight": 1.0,
        "schedule.discriminator_warmup_images": 0,
        "schedule.gradient_clip_norm": 0.0,
        "losses.perceptual": "vgg19",
        "losses.perceptual_weight": 0.0,
        "losses.perceptual_weights": "random",
        "losses.adversarial_weight": 0.0005,
        "losses.r1_weight": 0.0,
        "schedule.total_images": 24,
        "schedule.pixel_only_images": 8,
        "schedule.generator_learning_rate": 1e-3,
        "schedule.discriminator_learning_rate": 1e-4,
        "schedule.learning_rate_decay": "milestones",
        "schedule.milestones_images": [16],
        "schedule.gamma": 0.5,
        "schedule.ema_half_life_images": 400.0,
        "report.every_images": 4,
        "report.metrics": ["psnr_y", "ssim_y"],
        "report.validate_every_images": 12,
        "report.checkpoint_every_images": 8,
        "report.validation_sets": [str(folder / "validation")],
        "report.experiment": "tests",
    } | train_changes
    for path, value in changes.items():
        *sections, name = path.split(".")
        table = plain["train"]
        for section in sections:
            table = table[section]
        table[name] = value
    return structure(plain, Preset, "tiny preset")


def two_step_preset(folder: Path) -> Preset:
    """A preset of two GAN steps, each reported, validated and saved, with its shards and validation set."""
    changes = {"data.crop_px": 64, "data.canvas_px": 64, "data.batch_size": 2, "report.every_images": 2}
    changes |= {"report.validate_every_images": 2, "report.checkpoint_every_images": 2}
    changes |= {"schedule.total_images": 4, "schedule.pixel_only_images": 0, "schedule.milestones_images": []}
    preset = tiny_preset(folder, **changes)
    write_photos(folder / "photos", [(160, 176)])
    write_photos(folder / "validation" / "HR", [(64, 72)])
    write_shards(preset.shards)
    return preset


def runtime_config(**changes: Any) -> RuntimeConfig:
    """Deterministic float32, as most tests compute; `changes` say otherwise."""
    return dataclasses.replace(PRESETS.load("demo", Preset).train.runtime, **changes)


def write_preset(preset: Preset, path: Path) -> Path:
    """Write a preset where a job can read it."""
    import json

    path.write_text(json.dumps(to_plain(preset)), encoding="utf-8")
    return path


def prepare_tiny_data(folder: Path) -> Preset:
    """Photos, shards and a validation set for `tiny_preset`; about 40 sub-images in several tars."""
    preset = tiny_preset(folder)
    write_photos(folder / "photos", [(160, 176), (128, 200), (150, 150)])
    write_photos(folder / "validation" / "HR", [(64, 72), (60, 50)])
    write_shards(preset.shards)
    return preset


def model_file(path: Path) -> str:
    """Write the weights of a tiny generator, scale 4; return their path as an argument."""
    torch.manual_seed(0)
    save_generator(path, SRVGGNetCompact(4, 1, 4))
    return str(path)


def comparable(report: Mapping[str, float]) -> dict[str, float]:
    """The values of a report that two engines have in common, up to rounding.

    An accuracy counts logits near 0, which rounding may tip. DeepSpeed measures no gradient of a term.
    """
    return {name: value for name, value in report.items() if not re.search("^gradient|/accuracy_", name)}


def run_command(
    command: Sequence[str], folder: Path, *, timeout_s: float = 300.0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment as a user would, in `folder`, with MLflow's store there."""
    program = BIN / command[0]
    return subprocess.run(
        [str(program) if program.exists() else command[0], *command[1:]],
        cwd=folder,
        env=job_environment(folder) | environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def job_environment(folder: Path) -> dict[str, str]:
    """The environment of a job in a test: one thread, no GPU, a store of its own."""
    return os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "PYTHONWARNINGS": "ignore",
    }


def job(name: str) -> str:
    """Path of a job's file."""
    return str(ROOT / "jobs" / name)


def exit_code_of(main: Main, *arguments: object) -> int:
    """Run a job in this process; return its exit code, also where a bad flag ends the process."""
    from jobs.terminal import run_job

    try:
        return run_job(main, [str(argument) for argument in arguments])
    except SystemExit as left:
        return int(left.code or 0)


def assert_bad_input(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """A refusal: exit code 2, one screen, no traceback, and the words that help."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 24, done.stderr
    text = " ".join((done.stdout + done.stderr).split())
    for word in words:
        assert word in text, f"{word!r} is not in: {text}"


def run_ranks(
    function: Callable[..., None],
    *,
    world_size: int,
    folder: Path,
    args: tuple[Any, ...] = (),
    timeout_s: float = 120.0,
) -> None:
    """Run a module-level `function(rank, world_size, *args)` on gloo processes; raise the first failure."""
    context = mp.start_processes(
        _enter_rank,
        args=(world_size, str(folder / "rendezvous"), function, args),
        nprocs=world_size,
        join=False,
        start_method="spawn",
    )
    deadline = time.monotonic() + timeout_s
    while not context.join(timeout=1.0):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            raise TimeoutError(f"{function.__name__} did not finish on {world_size} ranks within {timeout_s} s")


def _enter_rank(rank: int, world_size: int, store: str, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    os.environ |= {name: str(value) for name, value in ranks.items()}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    try:
        function(rank, world_size, *args)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def changed(preset: Preset, **sections: Any) -> Preset:
    """A preset with other training tables."""
    return dataclasses.replace(preset, train=dataclasses.replace(preset.train, **sections))
