"""How fast is a whole training step, against the SeD release, and what do data, tracking and ranks add to it?

* step: RRDB with P+SeD and U+SeD, full size, in the order of the release's train.py, against the trainer's own step
  (channels_last, shared discriminator pass, EMA); same weights and inputs. One process each (allocator), alternating.
* overhead: share of a real run's loop outside the step, with MLflow, reports every second step and one checkpoint.
* ranks: the same step in one process on one core, and in two under DDP on two cores, with as many images each.

Reports wall time and processor time; on a shared machine the latter is more reliable.

Run:
    git clone https://github.com/lbc12345/SeD /tmp/SeD
    python benchmarks/training_step.py --reference /tmp/SeD
    python benchmarks/training_step.py --reference /tmp/SeD --parts step --device cuda --batch 8 --repeats 20
    ... --parts step --device cuda --batch 8 --repeats 20 --precision bf16 --compile
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from _measure import StepProcess, import_reference, peak_mib, time_repeats, time_step
from _origin import add_json_argument, extremes, publish, speed_up
from _steps import ADVERSARIAL_WEIGHT, NETWORKS, SCHEDULES, Losses, Step, build_our_step, build_step
from _tables import Column, Row, label, mib, ratio, row_of, seconds
from torch.nn.parallel import DistributedDataParallel

from pipeline.train.ema import MovingAverage

WAYS = ("reference", "ours")
STEPS = (
    label("network"),
    label("batch"),
    label("side"),
    seconds("wall s", ".3g"),
    Column("images/s", ".3f", "higher"),
    ratio("speed-up"),
    seconds("CPU s"),
    ratio("speed-up by CPU s"),
    mib(),
    ratio("memory, of the reference's", "lower"),
)
SPEED_UPS = {"P+SeD": 1.2, "U+SeD": 1.3}
"""Targets; that of memory is less than the reference's."""
LOOP = (label("part of the loop"), seconds("wall s"), ratio("of the steps", "lower", ".2%"))
RANKS = (
    label("processes"),
    seconds("wall s per step"),
    Column("images/s", ".3f", "higher"),
    ratio("of twice one"),
    seconds("CPU s per step of one process"),
)


def build_reported_step(way: str, name: str, options: argparse.Namespace) -> Step:
    """Return a step that brings its losses to the host, so that another process can read them."""
    step = build_step(way, name, options)
    return lambda: {key: float(value) for key, value in step().items()}


def check_equal_losses(wanted: Losses, got: Losses, perceptual_weight: float, precision: str) -> None:
    """Refuse to time what computes something else than the release, which weights its terms inside."""
    got["perceptual"] *= perceptual_weight
    got["adversarial"] *= ADVERSARIAL_WEIGHT
    errors = {key: abs(got[key] - value) / abs(value) for key, value in wanted.items()}
    print("  losses within", {key: f"{error:.0e}" for key, error in errors.items()}, flush=True)
    if max(errors.values()) > (5e-2 if precision == "bf16" else 1e-2):
        raise SystemExit(f"ours does not compute what the reference does: {got} and {wanted}")


def measure_step(name: str, options: argparse.Namespace) -> list[Row]:
    """Measure a step with one discriminator and return the table's rows."""
    print(f"RRDB with {name}:", flush=True)
    with contextlib.ExitStack() as open_processes:
        processes = {
            way: open_processes.enter_context(
                contextlib.closing(
                    StepProcess(build_reported_step, way, name, options, threads=options.threads, warmup=options.warmup)
                )
            )
            for way in WAYS
        }
        check_equal_losses(processes["reference"].first, processes["ours"].first, NETWORKS[name][2], options.precision)
        wall, cpu = time_repeats({way: process.time for way, process in processes.items()}, options.repeats)
    peaks = {way: peak_mib(build_step, way, name, options, threads=options.threads) for way in WAYS}
    rows = []
    for way in WAYS:
        faster, faster_range = speed_up(wall["reference"], wall[way])
        by_cpu, by_cpu_range = speed_up(cpu["reference"], cpu[way])
        wall_s, cpu_s = statistics.median(wall[way]), statistics.median(cpu[way])
        spread = {"wall s": extremes(wall[way]), "CPU s": extremes(cpu[way])}
        spread |= {"speed-up": faster_range, "speed-up by CPU s": by_cpu_range}
        values = (name, options.batch, way, wall_s, options.batch / wall_s, faster, cpu_s, by_cpu, peaks[way])
        reached = {"speed-up": SPEED_UPS[name], "memory, of the reference's": 1.0}
        targets = reached if way == "ours" else {}
        rows.append(row_of(STEPS, *values, peaks[way] / peaks["reference"], spread=spread, targets=targets))
    return rows


class Clock:
    """Adds up the seconds spent in some functions, by the wall clock and on the CPU."""

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}

    def watch(self, owner: Any, name: str, label: str) -> None:
        """Time every call of `owner.name` from now on."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                so_far = self.seconds.get(label, (0.0, 0.0))
                self.seconds[label] = (so_far[0] + time.perf_counter() - wall, so_far[1] + time.process_time() - cpu)

        setattr(owner, name, timed)


def run_job(preset_file: str, folder: str, threads: int, pipe: Any) -> None:
    """Run the training job on a preset and send where the loop's time went."""
    os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "OMP_NUM_THREADS": str(threads)}
    os.chdir(folder)
    torch.set_num_threads(threads)
    import pipeline.run.assembly
    import pipeline.run.session
    from jobs import train_sed
    from pipeline.checkpoint import CheckpointStore
    from pipeline.run.inputs import StepInputs

    clock = Clock()
    clock.watch(pipeline.run.session, "train", "loop")
    clock.watch(pipeline.run.assembly, "gan_step_shared_pass", "step")
    clock.watch(MovingAverage, "update", "step")
    clock.watch(StepInputs, "__call__", "step")
    clock.watch(CheckpointStore, "save", "checkpoint")
    code = train_sed.main([preset_file])
    pipe.send(clock.seconds if code == 0 else {})


def measure_overhead(options: argparse.Namespace) -> list[Row]:
    """Run the job and return the table's rows: what of the loop is not the step."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from harness import write_photos, write_shards  # pyright: ignore[reportMissingImports]

    from jobs.command_line import PRESETS
    from pipeline.config.plain import structure, to_plain
    from pipeline.config.schema import Preset

    with tempfile.TemporaryDirectory() as folder:
        plain, batch = to_plain(PRESETS.load("rrdb_sed_p_x4", Preset)), options.batch
        plain["shards"] |= {"source": [f"{folder}/photos"], "output": f"{folder}/shards", "exclude": []}
        plain["shards"] |= {"sub_image_px": 480, "stride_px": 240}
        train = plain["train"]
        train["run_dir"], train["data"]["shards"] = f"{folder}/run", f"{folder}/shards"
        train["data"] |= {"crop_px": options.crop_px, "canvas_px": options.crop_px}
        train["data"] |= {"batch_size": batch, "num_workers": 0}
        train["generator"] |= {"num_blocks": options.blocks, "initial_weights": "random"}
        train["semantics"]["weights"] = train["losses"]["perceptual_weights"] = "random"
        train["schedule"] |= {"total_images": options.steps * batch, "milestones_images": []}
        train["schedule"]["ema_half_life_images"] = 22_000.0
        train["runtime"] |= {"precision": "float32", "compile": False, "discriminator_pass": "shared"}
        train["report"] |= {"every_images": 2 * batch, "validate_every_images": options.steps * batch}
        train["report"] |= {"checkpoint_every_images": options.steps * batch, "validation_sets": []}
        preset = structure(plain, Preset, "benchmark")
        write_photos(Path(folder, "photos"), [(960, 720), (720, 960)])
        write_shards(preset.shards)
        Path(folder, "preset.json").write_text(json.dumps(to_plain(preset)), encoding="utf-8")
        context = multiprocessing.get_context("spawn")
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=run_job, args=(f"{folder}/preset.json", folder, options.threads, send))
        process.start()
        send.close()
        seconds = receive.recv()
        process.join()
    loop, step, saving = (seconds[label] for label in ("loop", "step", "checkpoint"))
    return [
        row_of(LOOP, part, wall, wall / step[0], targets={"of the steps": 0.05})
        for part, wall in (
            (f"{options.steps} steps", step[0]),
            ("data, reports, MLflow", loop[0] - step[0] - saving[0]),
            ("one checkpoint", saving[0]),
        )
    ]


def run_rank(rank: int, world_size: int, name: str, options: argparse.Namespace, store: str, pipe: Any) -> None:
    """Time steps of one rank on a core of its own; sends the medians by the wall clock and on the CPU."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    torch.set_num_threads(1)
    wrap = None
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
        wrap = functools.partial(DistributedDataParallel, broadcast_buffers=False, gradient_as_bucket_view=True)
    step = build_our_step(name, options, wrap=wrap)
    step()
    seconds = [time_step(step) for _ in range(options.repeats)]
    pipe.send(tuple(statistics.median(values) for values in zip(*seconds, strict=True)))
    if world_size > 1:
        dist.destroy_process_group()


def time_ranks(world_size: int, name: str, options: argparse.Namespace) -> tuple[float, float]:
    """Return the seconds a step of the slowest rank."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ranks = []
        for rank in range(world_size):
            receive, send = context.Pipe(duplex=False)
            arguments = (rank, world_size, name, options, f"{folder}/store", send)
            process = context.Process(target=run_rank, args=arguments)
            process.start()
            send.close()
            ranks.append((process, receive))
        seconds = [receive.recv() for _, receive in ranks]
        for process, _ in ranks:
            process.join()
    return max(wall for wall, _ in seconds), max(cpu for _, cpu in seconds)


def measure_ranks(name: str, options: argparse.Namespace) -> list[Row]:
    """Return the table's rows: one process, two, and the share of twice the speed that two reach."""
    one, two = (time_ranks(world_size, name, options) for world_size in (1, 2))
    share, target = one[0] / two[0], {"of twice one": 0.9}
    return [
        row_of(RANKS, "1, on 1 core", one[0], options.batch / one[0], 1.0, one[1]),
        row_of(RANKS, "2, on 2 cores", two[0], 2 * options.batch / two[0], share, two[1], targets=target),
    ]


def main() -> None:
    """Measure and publish the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="checkout of github.com/lbc12345/SeD, for the part `step`")
    parser.add_argument(
        "--parts", nargs="+", choices=("step", "overhead", "ranks"), default=["step", "overhead", "ranks"]
    )
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--crop-px", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the part `step`")
    parser.add_argument(
        "--precision", choices=("float32", "bf16"), default="float32", help="of ours; the release has float32 alone"
    )
    parser.add_argument("--compile", action="store_true", help="ours, as the presets have it on a GPU")
    parser.add_argument("--cuda-graphs", action="store_true", help="of ours")
    parser.add_argument("--schedule", choices=SCHEDULES, default="shared", help="of ours")
    parser.add_argument("--warmup", type=int, help="steps before the timed ones; default 1, and 5 on a GPU")
    parser.add_argument("--blocks", type=int, default=23, help="of the generator")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="of the run whose overhead is measured")
    parser.add_argument("--threads", type=int, default=1)
    add_json_argument(parser)
    options = parser.parse_args()
    if "step" in options.parts and options.reference is None:
        parser.error("the part `step` needs --reference; --parts overhead ranks does without it")
    if options.device != "cpu" and options.parts != ["step"]:
        parser.error("only the part `step` runs on a GPU: give --parts step")
    options.warmup = options.warmup or (1 if options.device == "cpu" and not options.compile else 5)
    torch.set_num_threads(options.threads)
    compiled = ", compiled" if options.compile else ""
    print(f"ours in {options.precision}{compiled}, {options.crop_px} px, {options.blocks} blocks", flush=True)
    if "step" in options.parts:
        import_reference(options.reference)
        rows = [row for name in options.networks for row in measure_step(name, options)]
        publish("training-step", STEPS, rows, options)
    if "overhead" in options.parts:
        publish("training-overhead", LOOP, measure_overhead(options), options, libraries=("torch", "mlflow"))
    if "ranks" in options.parts:
        publish("training-ranks", RANKS, measure_ranks(options.networks[0], options), options)


if __name__ == "__main__":
    main()
