"""The measurements of `python -m benchmarks --gpu`; each yields the rows of its table as it goes."""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _device import Row, copy_rate, matrix_rates, peak_gib, profile_kernels, synchronise, time_rounds
from _measure import FlopCounter
from _steps import NETWORKS, SCHEDULES, Batch, build_our_step, build_reference_step

ROOT = Path(__file__).resolve().parents[1]
# Precision, compilation, CUDA graphs.
OURS = (
    ("float32", False, False),
    ("float32", False, True),
    ("bf16", False, False),
    ("bf16", False, True),
    ("bf16", True, False),
    ("bf16", True, True),
)
Part = Callable[[argparse.Namespace], Iterator[Row]]


def run_gpu_tests(options: argparse.Namespace) -> Iterator[Row]:
    """Run the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--durations=3", str(ROOT / "tests" / "gpu")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout[-6000:], done.stderr[-2000:], flush=True)
    for line in done.stdout.splitlines():
        outcome, _, name = line.partition(" ")
        if outcome in {"PASSED", "FAILED", "ERROR", "SKIPPED", "XFAIL"}:
            yield {"test": name.partition(" - ")[0].rpartition("::")[2], "outcome": outcome.lower()}
    if done.returncode:
        raise RuntimeError(f"pytest ended with exit code {done.returncode}")


def measure_device(options: argparse.Namespace) -> Iterator[Row]:
    """Measure what bounds a step."""
    for name, rate in matrix_rates(options.device, 512 if options.tiny else 8192).items():
        yield {"rate": f"{name} matrix product, TFLOP/s", "measured": round(rate, 1)}
    yield {"rate": "copy, TB/s", "measured": round(copy_rate(options.device, 2**20 if options.tiny else 2**32), 2)}


def measure_steps(options: argparse.Namespace) -> Iterator[Row]:
    """Time the whole step of the release and ours, in every precision and order of passes."""
    rates = matrix_rates(options.device, 512 if options.tiny else 8192)
    for name in options.networks:
        for batch in options.batches:
            yield from _steps_of(name, _with(options, batch=batch), rates)


def _steps_of(name: str, options: argparse.Namespace, rates: dict[str, float]) -> Iterator[Row]:
    slow_ms = None
    if options.reference is not None:
        step = build_reference_step(name, options)
        row = _measure_step(step, name, "reference", "three", options) | {"times as fast": 1.0}
        slow_ms = row.get("ms")
        yield row
        del step
    flops: dict[str, int] = {}
    # bf16 and compilation are slow on a CPU.
    for precision, compiles, graphs in OURS[:1] if options.tiny else OURS:
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        settings = {"precision": precision, "compile": compiles, "cuda_graphs": graphs}
        step = build_our_step(name, _with(options, **settings))
        if not flops:
            flops = {schedule: _count_flops(functools.partial(step, schedule)) for schedule in SCHEDULES}
        for schedule in SCHEDULES:
            way = precision + ", compiled" * compiles + ", CUDA graph" * graphs
            row = _measure_step(functools.partial(step, schedule), name, way, schedule, options)
            if "ms" in row:
                row["times as fast"] = round(slow_ms / row["ms"], 2) if slow_ms else None
                rate = rates["TF32" if precision == "float32" else precision]
                row["of matrix rate"] = round(1e-9 * flops[schedule] / row["ms"] / rate, 3)
            yield row
        del step


def _count_flops(step: Callable[[], Any]) -> int:
    with FlopCounter() as counter:
        step()
    return counter.flops


def _measure_step(step: Callable[[], Any], name: str, way: str, schedule: str, options: argparse.Namespace) -> Row:
    row: Row = {"network": name, "batch": options.batch, "way": way, "passes of D": schedule}
    start = time.perf_counter()
    try:
        step()
        synchronise(options.device)
        row["first step, s"] = round(time.perf_counter() - start, 1)
        timing = time_rounds(step, options.device, rounds=options.rounds, steps=options.steps)
    except RuntimeError as error:  # out of memory is one, too
        return row | {"first step, s": f"failed: {str(error)[:120]!r}"}
    row |= timing.columns | {"images/s": round(1e3 * options.batch / timing.median_ms, 1)}
    # A graph's memory is its own, and not allocated again when it is replayed.
    row["peak GiB"] = None if "graph" in way else peak_gib(step, options.device)
    row["kernels"], row["GPU idle"] = profile_kernels(step, options.device)
    return row


def measure_parts(options: argparse.Namespace) -> Iterator[Row]:
    """Time what a step in bf16 is made of, each part by itself, and what is done for every batch beside it."""
    from pipeline.losses import PerceptualLoss
    from pipeline.models.generators import RRDBNet
    from pipeline.models.semantics.extractor import build_semantic_extractor
    from pipeline.runtime.trainable import DdpTrainable
    from pipeline.train.ema import MovingAverage

    device, layout = options.device, torch.channels_last
    batch = Batch.draw(options.batch, options.crop_px).on(device, layout)
    autocast = functools.partial(torch.autocast, device, torch.bfloat16, enabled=not options.tiny)

    def place(module: torch.nn.Module) -> torch.nn.Module:
        return module.to(device).to(memory_format=layout)

    def row(part: str, run: Callable[[], Any]) -> Row:
        timing = time_rounds(run, device, rounds=options.rounds, steps=options.steps)
        kernels, idle = profile_kernels(run, device)
        return {"part": part, **timing.columns, "kernels": kernels, "GPU idle": idle}

    generator = place(RRDBNet(num_blocks=options.blocks))

    def forward(network: torch.nn.Module, *inputs: Any) -> torch.Tensor:
        with autocast():
            return network(*inputs).float().mean()

    def train(network: torch.nn.Module, *inputs: Any) -> None:
        forward(network, *inputs).backward()

    def infer() -> None:
        with torch.no_grad():
            forward(generator, batch.lq)

    yield row("generator, forward alone", infer)
    yield row("generator, forward and backward", functools.partial(train, generator, batch.lq))
    if not options.tiny:
        compiled = place(RRDBNet(num_blocks=options.blocks))
        compiled.compile()
        yield row("the same compiled", functools.partial(train, compiled, batch.lq))
    perceptual, sr = place(PerceptualLoss(weights="random")), batch.hr.clone().requires_grad_()
    yield row("perceptual loss, with gradient", lambda: forward(perceptual, sr, batch.hr.flip(0)).backward())
    for name in options.networks:
        network = place(NETWORKS[name][1](64, semantic_channels=1024))
        yield row(
            f"{name}, one pass, forward and backward", functools.partial(train, network, batch.hr, batch.semantics)
        )
    extractor = place(build_semantic_extractor(weights="random"))
    yield row("semantics (CLIP RN50 to layer 3)", lambda: forward(extractor, batch.hr))
    average = MovingAverage(generator)
    yield row("moving average", lambda: average.update(0.999))
    adam = torch.optim.Adam(generator.parameters(), 1e-4, fused=True)
    trained = DdpTrainable(generator, generator, adam, 0.0)
    gradients = [torch.zeros_like(parameter) for parameter in generator.parameters()]

    def update() -> None:
        for parameter, gradient in zip(generator.parameters(), gradients, strict=True):
            parameter.grad = gradient
        trained.step(1e-4)

    yield row("Adam on the generator, with the norm that decides", update)
    yield from _degradation_rows(options, row)


def _degradation_rows(options: argparse.Namespace, row: Callable[[str, Callable[[], Any]], Row]) -> Iterator[Row]:
    from pipeline.degrade import degrade, stack_parameters
    from shards.degradation.draws import variant_seed
    from shards.degradation.parameters import draw_parameters
    from shards.degradation.recipe import load_recipe

    recipe, canvas_px = load_recipe("realesrgan-1"), options.crop_px + 144
    seeds = [variant_seed(0, f"{index:064x}", 0) for index in range(options.batch)]
    drawn = [draw_parameters(recipe, seed, scale=4, canvas_px=canvas_px, crop_px=options.crop_px) for seed in seeds]
    stacked = stack_parameters(drawn)
    hr, moved = torch.rand(options.batch, 3, canvas_px, canvas_px).to(options.device), stacked.to(options.device)
    for dtype in (torch.float64, torch.float32):
        name = str(dtype).removeprefix("torch.")
        yield row(f"degradation in {name}", functools.partial(degrade, hr, moved, dtype=dtype))
    yield row("its parameters to the device", lambda: stacked.to(options.device))


def measure_run(options: argparse.Namespace) -> Iterator[Row]:
    """Train by the job itself, from shards, with reports: its images/s beside those of the bare step."""
    for degradation in ("classical", "realworld"):
        with tempfile.TemporaryDirectory() as folder:
            yield {"task": degradation} | _run_job(Path(folder), degradation, options)


def _run_job(folder: Path, degradation: str, options: argparse.Namespace) -> Row:
    steps, batch = options.run_steps, options.batch
    preset = _run_preset(folder, degradation, steps * batch, options)
    script = "import sys; sys.path[:0] = sys.argv[2:]; from _gpu_run import run; run(sys.argv[1])"
    paths = [str(Path(__file__).parent), str(ROOT)]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    command = [sys.executable, "-c", script, str(preset), *paths]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout[-1500:], done.stderr[-3000:], flush=True)
    if done.returncode:
        raise RuntimeError(f"the job ended with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1]) | {"batch": batch, "steps": steps}


def _run_preset(folder: Path, degradation: str, total_images: int, options: argparse.Namespace) -> Path:
    """Write shards of synthetic photos and the preset of a run on them."""
    sys.path.insert(0, str(ROOT / "tests"))
    from harness import write_photos, write_preset, write_shards  # pyright: ignore[reportMissingImports]

    from jobs.command_line import PRESETS
    from pipeline.config.plain import structure, to_plain
    from pipeline.config.schema import Preset

    is_classical, batch, side = degradation == "classical", options.batch, 128 if options.tiny else 480
    plain = to_plain(PRESETS.load("rrdb_sed_p_x4" if is_classical else "realworld_rrdb_sed_u_x4", Preset))
    plain["shards"] |= {"source": [f"{folder}/photos"], "output": f"{folder}/shards", "exclude": []}
    plain["shards"] |= {"sub_image_px": side, "stride_px": side // 2}
    train = plain["train"]
    train["run_dir"], train["data"]["shards"] = f"{folder}/run", f"{folder}/shards"
    train["data"] |= {"batch_size": batch, "num_workers": 0 if options.tiny else 12, "crop_px": options.crop_px}
    train["data"]["canvas_px"] = options.crop_px if is_classical else min(side, options.crop_px + 144)
    train["generator"] |= {"num_blocks": options.blocks, "initial_weights": "random"}
    train["semantics"]["weights"] = train["losses"]["perceptual_weights"] = "random"
    train["schedule"] |= {"total_images": total_images, "milestones_images": []}
    train["runtime"] |= {"precision": "float32", "compile": False} if options.tiny else {"cuda_graphs": True}
    every = max(1, options.run_steps // 5) * batch
    train["report"] |= {"every_images": every, "validate_every_images": total_images // every * every}
    train["report"] |= {"checkpoint_every_images": total_images // every * every, "validation_sets": []}
    preset = structure(plain, Preset, "benchmark")
    sizes = [(side, 2 * side)] * 2 if options.tiny else [(1080, 1440)] * 12
    write_photos(folder / "photos", sizes)
    write_shards(preset.shards)
    return write_preset(preset, folder / "preset.json")


def measure_upscale(options: argparse.Namespace) -> Iterator[Row]:
    """Upscale photos of two sizes, whole and in tiles, in every precision."""
    from pipeline.inference.device import autocast
    from pipeline.inference.upscale import upscale
    from pipeline.models.generators import RRDBNet

    generator = RRDBNet(num_blocks=options.blocks).eval().to(options.device)
    for height, width in ((8, 8),) if options.tiny else ((270, 480), (1080, 1920)):
        lq = np.random.RandomState(0).randint(0, 256, (height, width, 3), dtype=np.uint8)
        run = functools.partial(upscale, generator, lq, 4)
        megapixels = 16e-6 * height * width
        for precision in ("float32", "bf16", "fp16"):
            with autocast(torch.device(options.device), precision):
                timing = time_rounds(run, options.device, rounds=options.rounds, steps=1, warmup=1)
                yield {
                    "input": f"{width}x{height}",
                    "precision": precision,
                    **timing.columns,
                    "output megapixels/s": round(1e3 * megapixels / timing.median_ms, 1),
                    "peak GiB": peak_gib(run, options.device),
                }


def _with(options: argparse.Namespace, **changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**vars(options) | changes)


PARTS: dict[str, tuple[str, Part]] = {
    "tests": ("GPU tests", run_gpu_tests),
    "device": ("What bounds a step", measure_device),
    "step": ("Training step", measure_steps),
    "parts": ("What a step is made of, in bf16", measure_parts),
    "run": ("A run of the job", measure_run),
    "upscale": ("Upscaling", measure_upscale),
}
"""Part to its title and its measurement, in order."""
