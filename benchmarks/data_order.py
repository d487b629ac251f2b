"""What does the order of samples cost at scale: 10^9 samples in 10^5 shards, 4,096 ranks?

Each way runs in a process of its own and takes the next 1,000 indices of one rank, in the middle of an epoch, 32
images a rank and step: seconds of the first call (which lays the epoch out) and of a later one, and peak memory. The
peer is the order that most samplers use: a permutation of all indices, made anew each epoch on every rank.

A second table opens a manifest of that many shards, as every process of a run does. A third counts, on 480-px cuts of
2K photos, how often a batch holds two cuts of one photo, by the size of the window.

Run:
    python benchmarks/data_order.py
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from _origin import add_json_argument, publish
from _tables import Row, label, mib, ratio, row_of, seconds

from shards.format.manifest import Manifest, write_manifest
from shards.format.settings import ImageSettings
from shards.format.sidecars import ShardEntry
from shards.read.order import order_samples
from shards.read.reader import ShardSet

NUM_RANKS, SHARE, NUM_INDICES = 4096, 32, 1000
CUTS_A_PHOTO, PHOTOS_A_SHARD, SHARDS, BATCH = 40, 12, 270, 32
METHODS = (
    label("method"),
    label("samples", ","),
    seconds("first 1,000 indices, s", ".3f"),
    seconds("later ones, s", ".3f"),
    mib("MiB"),
)
OPENED = (
    label("shards opened", ","),
    seconds("s"),
    mib(),
    ratio("bytes per shard", "lower", ",.0f"),
)
PAIRS = (label(f"window, of {SHARDS} shards"), ratio(f"pairs of one photo per batch of {BATCH}", "lower"))
SETTINGS = ImageSettings("reject", "classical", "png", 10**8, "bicubic-1", 4, 0, 192.0, 240, 480, variants=1)


def positions(num_samples: int, rank: int) -> np.ndarray:
    """Return one rank's next 1,000 positions from the middle of an epoch on."""
    steps = np.arange(-(-NUM_INDICES // SHARE))[:, None] * NUM_RANKS * SHARE
    return (num_samples // 2 + steps + rank * SHARE + np.arange(SHARE)).ravel()[:NUM_INDICES]


def keyed(num_samples: int, num_shards: int, window_shards: int) -> tuple[float, float]:
    """Time our order."""
    sizes = [num_samples // num_shards] * num_shards
    start = time.perf_counter()
    order = order_samples(sizes, 1, window_shards)
    first = order.at(positions(num_samples, 17))
    middle = time.perf_counter()
    later = order.at(positions(num_samples, 18))
    assert len(np.unique(np.concatenate([first, later]))) == 2 * NUM_INDICES
    return middle - start, time.perf_counter() - middle


def permuted(num_samples: int, num_shards: int, window_shards: int) -> tuple[float, float]:
    """Time a whole permutation."""
    start = time.perf_counter()
    order = np.random.default_rng(1).permutation(num_samples)
    order[positions(num_samples, 17) % num_samples]
    middle = time.perf_counter()
    order[positions(num_samples, 18) % num_samples]
    return middle - start, time.perf_counter() - middle


def opened(folder: str) -> tuple[float, float]:
    """Time opening a dataset."""
    start = time.perf_counter()
    images = ShardSet.open(Path(folder))
    assert len(images) > 0
    return time.perf_counter() - start, 0.0


def in_child(work: Callable[..., tuple[float, float]], *args: object) -> tuple[float, float, float]:
    """Run in a process of its own; return its seconds, and its peak MiB above its imports."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, work, args))
    process.start()
    sender.close()  # else nobody notices that it failed
    result = receiver.recv()
    process.join()
    return result


def _child(sender: Connection, work: Callable[..., tuple[float, float]], args: tuple[object, ...]) -> None:
    before = _status_mib("VmHWM")
    seconds = work(*args)
    sender.send((*seconds, _status_mib("VmHWM") - before))


def _status_mib(name: str) -> float:
    # Of this process alone; what getrusage says is inherited from the parent.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def write_large_manifest(folder: Path, num_shards: int) -> None:
    """Write a manifest of shards that need not be there."""
    entries = tuple(
        ShardEntry(f"images-{number:06d}", f"{number:064x}", 200 * 2**20, 10_000) for number in range(num_shards)
    )
    write_manifest(folder, Manifest("0" * 64, SETTINGS, entries))


def same_photo_pairs(window_shards: int) -> float:
    """Return how many pairs of cuts of one photo a batch holds, on average over an epoch."""
    sizes = [CUTS_A_PHOTO * PHOTOS_A_SHARD] * SHARDS
    photos = order_samples(sizes, 1, window_shards).at(np.arange(sum(sizes))) // CUTS_A_PHOTO
    batches = np.sort(photos[: len(photos) // BATCH * BATCH].reshape(-1, BATCH), axis=1)
    pairs = sum((batches[:, lag:] == batches[:, :-lag]).sum() for lag in range(1, BATCH))
    return float(pairs) / len(batches)


def main() -> None:
    """Measure and publish the three tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=10**9)
    parser.add_argument("--shards", type=int, default=10**5)
    parser.add_argument("--permutation-samples", type=int, default=10**8, help="of the peer, which needs the memory")
    add_json_argument(parser)
    options = parser.parse_args()
    libraries = ("numpy",)
    publish("sampling-order", METHODS, compare_methods(options), options, libraries=libraries)
    opened_rows = [open_shards(options.shards // divisor) for divisor in (100, 10, 1)]
    publish("sampling-order-open", OPENED, opened_rows, options, libraries=libraries)
    pair_rows = [row_of(PAIRS, str(shards or "all"), same_photo_pairs(shards)) for shards in (1, 4, 16, 64, 0)]
    publish("sampling-order-pairs", PAIRS, pair_rows, options, libraries=libraries)


def compare_methods(options: argparse.Namespace) -> list[Row]:
    """Return the rows of our orders and of the peer's."""
    methods = (
        ("keyed permutation of all", keyed, options.samples, 0),
        ("windows of 16 shards", keyed, options.samples, 16),
        ("windows of 256 shards", keyed, options.samples, 256),
        ("stored permutation (peer)", permuted, options.permutation_samples, 0),
    )
    rows = []
    for name, work, num_samples, window_shards in methods:
        measured = in_child(work, num_samples, options.shards, window_shards)
        rows.append(row_of(METHODS, name, num_samples, *measured))
    return rows


def open_shards(num_shards: int) -> Row:
    """Return the row of one number of shards."""
    with tempfile.TemporaryDirectory() as folder:
        write_large_manifest(Path(folder), num_shards)
        spent_s, _, peak = in_child(opened, folder)
    return row_of(OPENED, num_shards, spent_s, peak, peak * 2**20 / num_shards)


if __name__ == "__main__":
    main()
