"""How fast do training processes get crops, from a disk and from an object store, and what does a resume cost?

Six ways to stream the same PNG files (`_loader_sides.py`), with one function that decodes crops, equal loader
processes, and about equal file sizes; each measurement in a fresh process, in turns. The store is a local S3 server
behind a proxy that adds 20 ms to each request and counts bytes; copies on the disk are removed before.

* crops/s and first batch: one training process, an epoch from its start; the first batch counts from opening on, crops
  from the batch after those that were prepared meanwhile.
* resume: two processes stop in the middle of an epoch; four resume with the state that was saved, on the disk. The time
  is the one until the last of them has its first batch. Samples that the epoch then lacks, or has twice, are counted.
* read: bytes from the store, over the bytes of the samples that were returned.
* memory: of all processes, shared pages divided among them, in the middle.

Run:
    pip install litdata mosaicml-streaming datasets pylance
    python benchmarks/loaders.py --photos DIR
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import itertools
import multiprocessing
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist
from _loader_sides import FILE_BYTES, SIDES, Place, rows_of
from _origin import add_json_argument, extremes, publish, speed_up
from _shards import write_classical
from _slow_store import SlowStore, slow_store
from _tables import Column, Row, label, mib, ratio, row_of, seconds

BUCKET = "loaders"
NUM_PREPARED = 16
"""Batches after the first that do not count: processes prepare that many at most while the first is awaited."""
SPAWN = multiprocessing.get_context("spawn")
COLUMNS = (
    label("from"),
    label("loader"),
    Column("crops/s", ".0f", "higher"),
    ratio("ours is as fast, times"),
    seconds("first batch s"),
    seconds("resume s"),
    Column("samples lost", ",d", "lower", is_compared=True),
    Column("repeated", ",d", "lower", is_compared=True),
    ratio("read", "lower"),
    mib("MiB"),
)


@dataclass(frozen=True)
class Epoch:
    """What one process measured while it read."""

    first_batch_s: float
    crops_per_second: float
    memory_mib: float
    num_samples: int


def read_epoch(name: str, place: Place, sub_image_px: int, num_samples: int) -> Epoch:
    """Read from the start of an epoch, in a fresh process."""
    torch.set_num_threads(1)
    random.seed(0)
    side = SIDES[name](sub_image_px)
    start_s = time.perf_counter()
    found = iter(side.loader(place, None, 0))
    num = len(side.keys(next(found)))
    first_batch_s = time.perf_counter() - start_s
    num += sum(len(side.keys(batch)) for batch in itertools.islice(found, NUM_PREPARED))
    num_before, begin_s = num, time.perf_counter()
    memory_mib = pause_s = 0.0
    for batch in found:
        num += len(side.keys(batch))
        if not memory_mib and num >= num_samples // 2:
            pause_s = -time.perf_counter()
            memory_mib = _memory_mib()
            pause_s += time.perf_counter()
    reading_s = time.perf_counter() - begin_s - pause_s
    return Epoch(first_batch_s, (num - num_before) / reading_s, memory_mib, num)


def _memory_mib() -> float:
    me = psutil.Process()
    total = 0
    for process in (me, *me.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20


def read_as_rank(
    name: str, place: Place, sub_image_px: int, state: Any, num_seen: int, num_batches: int | None, meeting: Path
) -> tuple[list[str], float, Any]:
    """Read as one of several processes; return names of samples, seconds to the first batch, and the state to save."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(place.rank), "WORLD_SIZE": str(place.world_size), "LOCAL_RANK": str(place.rank)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(place.world_size)}
    dist.init_process_group("gloo", f"file://{meeting}", rank=place.rank, world_size=place.world_size)
    side = SIDES[name](sub_image_px)
    dist.barrier()
    start_s = time.perf_counter()
    loader = side.loader(place, state, num_seen)
    keys: list[str] = []
    first_s = float("nan")
    for number, batch in enumerate(loader, 1):
        first_s = time.perf_counter() - start_s if number == 1 else first_s
        keys += side.keys(batch)
        if number == num_batches:
            break
    saved = side.state(loader, num_seen + len(keys) * place.world_size)
    dist.barrier()
    return keys, first_s, saved


@dataclass(frozen=True)
class Resumed:
    """What four processes got of an epoch that two had begun.

    Attributes:
        first_batch_s: Until the last of them had its first batch; None where none had any.
        lost: Samples of the epoch that nobody read.
        repeated: Reads of samples that had been read.
    """

    first_batch_s: float | None
    lost: int
    repeated: int


def resume(name: str, place: Place, sub_image_px: int, num_samples: int, folder: Path) -> Resumed:
    """Stop two processes in the middle of an epoch, and resume with four."""
    num_batches = num_samples // 2 // place.batch

    def call(world_size: int, state: Any, num_seen: int, stop: int | None) -> list[tuple[list[str], float, Any]]:
        meeting = Path(tempfile.mkdtemp(dir=folder)) / "meeting"
        with ProcessPoolExecutor(world_size, SPAWN) as pool:
            ranks = [replace(place, rank=rank, world_size=world_size, workers=0) for rank in range(world_size)]
            calls = [
                pool.submit(read_as_rank, name, rank, sub_image_px, state, num_seen, stop, meeting) for rank in ranks
            ]
            return [one.result(timeout=300) for one in calls]

    before = call(2, None, 0, num_batches)
    after = call(4, before[0][2], num_batches * place.batch, None)
    seen = collections.Counter(key for keys, _, _ in (*before, *after) for key in keys)
    first_s = max((first_s for keys, first_s, _ in after if keys), default=None)
    result = Resumed(first_s, num_samples - len(seen), seen.total() - len(seen))
    print(f"{name}: {result}", flush=True)
    return result


def measure(names: Sequence[str], folder: Path, options: argparse.Namespace) -> list[Row]:
    """Measure every side on the disk and from the store."""
    num_samples = sum(1 for _ in rows_of(folder / "shards"))
    size_bytes = sum(len(row["hr"]) + len(row["lq"]) for row in rows_of(folder / "shards"))
    print(f"{num_samples} samples, {size_bytes / 2**20:.0f} MiB")
    rows = []
    with slow_store(BUCKET, options.latency_ms / 1000) as store:
        os.environ |= store.variables
        for name in names:
            store.upload(folder / name)
        for source in ("disk", "object store"):
            able = [name for name in names if source == "disk" or SIDES[name].reads_from_store]
            epochs: dict[str, list[Epoch]] = {name: [] for name in able}
            reads: dict[str, list[float]] = {name: [] for name in able}
            for _ in range(options.repeats):
                for name in able:
                    epoch, num_bytes = _one(name, source, folder, store, num_samples, options)
                    epochs[name].append(epoch)
                    reads[name].append(num_bytes / (size_bytes * epoch.num_samples / num_samples))
            for name in able:
                if source == "disk":
                    place = _place(name, source, folder, store, options)
                    resumed, read = resume(name, place, options.sub_image_px, num_samples, folder), None
                else:
                    resumed, read = None, statistics.median(reads[name])
                rows.append(_row(source, name, epochs, read, resumed))
    return rows


def _place(name: str, source: str, folder: Path, store: SlowStore, options: argparse.Namespace) -> Place:
    files = tuple(sorted(path.name for path in (folder / name).iterdir()))
    key = store.key_of(folder / name)
    location, http = (str(folder / name), "") if source == "disk" else (f"s3://{key}", f"{store.url}/{key}")
    cache = Path(tempfile.mkdtemp(dir=folder))
    return Place(location, files, cache, http, batch=options.batch, workers=options.workers)


def _one(
    name: str, source: str, folder: Path, store: SlowStore, num_samples: int, options: argparse.Namespace
) -> tuple[Epoch, int]:
    place = _place(name, source, folder, store, options)
    before = store.num_bytes
    with ProcessPoolExecutor(1, SPAWN) as pool:
        epoch = pool.submit(read_epoch, name, place, options.sub_image_px, num_samples).result(timeout=600)
    shutil.rmtree(place.cache, ignore_errors=True)
    print(f"{source} {name}: {epoch}, {(store.num_bytes - before) / 2**20:.0f} MiB from the store", flush=True)
    return epoch, store.num_bytes - before


def _row(
    source: str,
    name: str,
    epochs: dict[str, list[Epoch]],
    read: float | None,
    resumed: Resumed | None,
) -> Row:
    speeds = {side: [epoch.crops_per_second for epoch in found] for side, found in epochs.items()}
    faster, faster_range = speed_up(speeds["ours"], speeds[name])
    own = epochs[name]
    return row_of(
        COLUMNS,
        source,
        name,
        statistics.median(speeds[name]),
        faster,
        statistics.median(epoch.first_batch_s for epoch in own),
        resumed and resumed.first_batch_s,
        resumed and resumed.lost,
        resumed and resumed.repeated,
        read,
        statistics.median(epoch.memory_mib for epoch in own),
        spread={"crops/s": extremes(speeds[name]), "ours is as fast, times": faster_range},
    )


def installed() -> Iterator[str]:
    """Return the sides that can be imported here; print the others."""
    for name, side in SIDES.items():
        if importlib.util.find_spec(side.module) is None:
            print(f"SKIPPED {name}: {side.distribution} is not installed")
        else:
            yield name


def main() -> None:
    """Write the data in every way, measure, publish the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos of 320 px or more")
    parser.add_argument("--sub-image-px", type=int, default=320)
    parser.add_argument("--stride-px", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(SIDES), default=list(SIDES))
    add_json_argument(parser)
    options = parser.parse_args()
    options.threads = 1
    torch.set_num_threads(1)
    names = [name for name in installed() if name in options.only]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_classical(
            options.photos,
            folder / "shards",
            sub_image_px=options.sub_image_px,
            stride_px=options.stride_px,
            shard_mib=FILE_BYTES / 2**20,
        )
        for side in names:
            SIDES[side](options.sub_image_px).write(folder / "shards", folder / side)
        rows = measure(names, folder, options)
        libraries = list(dict.fromkeys(SIDES[side].distribution for side in names))
        publish("loaders", COLUMNS, rows, options, libraries=libraries)


if __name__ == "__main__":
    main()
