"""How long does a checkpoint hold up training, written in the foreground and in the background?

The state of a full-size RRDB generator, its average, the P+SeD discriminator and both Adam optimizers, on the CPU.
Foreground: gather, copy, write, synchronise and hash before the next step, as the trainer did at first. Background:
gather and copy; a thread does the rest. Alternating, in one process; each way's wall seconds and processor seconds of
the training thread, medians. The first background save also takes the host memory, and is shown by itself.

Then a step's work (the generator forward and backward) by itself and beside the thread that writes, in turns.

Run:
    python benchmarks/checkpoint_pause.py --repeats 5
    taskset -c 0 python benchmarks/checkpoint_pause.py --repeats 5    # training and writing on one core
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _origin import add_json_argument, extremes, publish, speed_up
from _tables import Column, Row, label, ratio, row_of, seconds

from pipeline.checkpoint import BackgroundWriter, Checkpoint, CheckpointStore, Retention
from pipeline.models.discriminators import PatchDiscriminator
from pipeline.models.generators import RRDBNet
from pipeline.runtime.trainable import DdpTrainable
from pipeline.train.ema import MovingAverage
from pipeline.train.skips import SkippedUpdates
from pipeline.train.state import TrainingState

PAUSES = (
    label("method"),
    seconds("wall s"),
    seconds("CPU s"),
    ratio("times as long as in the background"),
    Column("checkpoint, MiB", ",.0f", "lower", is_compared=True),
)
WORK = (label("a step's work"), label("cores"), seconds("wall s"), ratio("of its time alone", "lower"))


def build_state() -> TrainingState:
    """Networks of the paper's size, with Adam's moments as after a step."""
    trainables = []
    for network in (RRDBNet(64, 23, 32, 4), PatchDiscriminator(64, 1024)):
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        optimizer.step()
        optimizer.zero_grad()
        trainables.append(DdpTrainable(network, network, optimizer, 0.0))
    generator, discriminator = trainables
    return TrainingState(generator, {"discriminator": discriminator}, MovingAverage(generator.bare), SkippedUpdates(1))


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return wall seconds and processor seconds of this thread."""
    wall_s, cpu_s = time.perf_counter(), time.thread_time()
    call()
    return time.perf_counter() - wall_s, time.thread_time() - cpu_s


def snapshot(state: TrainingState) -> Checkpoint:
    """Gather the state at its next position."""
    state.images_seen += 8
    return state.to_checkpoint({})


def work(state: TrainingState, crop_px: int) -> None:
    """Do what a step does most of its time."""
    state.generator.bare(torch.zeros(1, 3, crop_px // 4, crop_px // 4)).square().mean().backward()
    state.generator.bare.zero_grad()


def time_work(state: TrainingState, writer: BackgroundWriter, crop_px: int, repeats: int) -> dict[str, list[float]]:
    """Return the wall seconds of a step's work by itself and beside the writing thread."""
    seconds: dict[str, list[float]] = {"by itself": [], "beside the thread": []}
    work(state, crop_px)
    for _ in range(repeats):
        seconds["by itself"].append(timed(lambda: work(state, crop_px))[0])
        writer.save(snapshot(state))
        seconds["beside the thread"].append(timed(lambda: work(state, crop_px))[0])
        writer.wait()
    return seconds


def main() -> None:
    """Measure and publish the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--crop-px", type=int, default=160, help="of the step's work; it should outlast the writing")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure; default: a temporary one")
    add_json_argument(parser)
    options = parser.parse_args()
    options.threads = 1
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    torch.set_num_threads(1)
    state, store = build_state(), CheckpointStore(folder / "checkpoints", Retention(newest=2))
    writer, pauses = BackgroundWriter(store), {"foreground": [], "background": []}
    written_s = []
    with writer.closing():
        first = timed(lambda: writer.save(snapshot(state)))
        writer.wait()
        for _ in range(options.repeats):
            pauses["foreground"].append(timed(lambda: store.save(snapshot(state))))
            pauses["background"].append(timed(lambda: writer.save(snapshot(state))))
            written_s.append(timed(writer.wait)[0])
        worked_s = time_work(state, writer, options.crop_px, options.repeats)
    size_mib = sum(path.stat().st_size for path in store.complete()[-1].iterdir()) / 2**20
    shutil.rmtree(folder)
    print(f"complete {statistics.median(written_s):.2f} s later")
    publish("checkpoint-pause", PAUSES, pause_rows(pauses, first, size_mib), options)
    publish("checkpoint-work", WORK, work_rows(worked_s), options)


def pause_rows(pauses: dict[str, list[tuple[float, float]]], first: tuple[float, float], size_mib: float) -> list[Row]:
    """Return the rows of both methods, and that of the first save in the background."""
    wall_s = {method: [wall for wall, _ in values] for method, values in pauses.items()}
    saved, saved_range = speed_up(wall_s["foreground"], wall_s["background"])
    rows = []
    for method, values in pauses.items():
        cpu = statistics.median(cpu for _, cpu in values)
        spread = {"wall s": extremes(wall_s[method])}
        times = None
        if method == "foreground":
            times, spread["times as long as in the background"] = saved, saved_range
        rows.append(row_of(PAUSES, method, statistics.median(wall_s[method]), cpu, times, size_mib, spread=spread))
    return [*rows, row_of(PAUSES, "background, the first, which allocates host memory", *first, None, size_mib)]


def work_rows(worked_s: dict[str, list[float]]) -> list[Row]:
    """Return the rows of a step's work by itself and beside the thread that writes."""
    cores, rows = str(len(os.sched_getaffinity(0))), []
    for method, wall_s in worked_s.items():
        slower, slower_range = speed_up(wall_s, worked_s["by itself"])
        spread = {"wall s": extremes(wall_s), "of its time alone": slower_range}
        rows.append(row_of(WORK, method, cores, statistics.median(wall_s), slower, spread=spread))
    return rows


if __name__ == "__main__":
    main()
