"""How many crops a second does a loader give, against the reference's folder of PNG files?

Both read the same sub-images (480 px, stride 240, with their LR of 120 px) from the page cache, cut 256 px of HR with
its 64 px of LR, turn both, and stack batches: the reference by its own dataset (`datasets/srdata.py`, OpenCV) from
files written as its own script writes them; ours from shards, with CRC, order and seeded crop. The reference gives
float tensors, ours bytes that become floats on the device; that conversion is timed as well (the last row). They take
turns.

Crops a processor second come from a loader without workers, crops a second by the clock from one with as many workers
as `--workers`, after its start.

Run:
    git clone https://github.com/lbc12345/SeD /tmp/SeD && pip install opencv-python-headless
    python benchmarks/reading.py --reference /tmp/SeD --photos DIR
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2  # pyright: ignore[reportMissingImports]
import numpy as np
import torch
from _measure import import_script
from _origin import add_json_argument, extremes, publish, speed_up
from _shards import SCALE, write_classical
from _tables import Column, Row, label, ratio, row_of
from torch.utils.data import DataLoader

from pipeline.config.data import DataConfig
from pipeline.data.samples import RankBatches, TrainingSamples, batches
from shards.format.png import decode_png
from shards.read.reader import ShardSet

CROP_PX = 256
WAYS = ("reference", "ours", "ours, and to float as on the device")
COLUMNS = (label("clock"), label("side"), Column("crops/s", ".0f", "higher"), ratio("speed-up"))


def write_folder(shards: Path, output: Path) -> None:
    """Write the same sub-images as the reference's script does: two folders of PNG files."""
    images = ShardSet.open(shards)
    folders = {"png": output / "train_sub", "lq.png": output / "train_sub_x4"}
    for extension, folder in folders.items():
        folder.mkdir(parents=True)
        for sample in map(images.sample, range(len(images))):
            pixels = cv2.cvtColor(decode_png(sample.members[extension], sample.key), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(folder / f"{sample.key}.png"), pixels)


def reference_loader(checkout: Path, folder: Path, batch: int, workers: int) -> Iterable[object]:
    """Return the reference's dataset in a loader as its train.py builds it."""
    dataset = import_script(checkout / "datasets" / "srdata.py").Train(
        scale=SCALE, patch_size=CROP_PX // SCALE, data_root=str(folder)
    )
    # Its workers stay between epochs, which are short here: otherwise their start would be measured.
    stays = workers > 0
    return DataLoader(
        dataset,
        batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=stays,
        prefetch_factor=4 if stays else None,
    )


def our_loader(shards: Path, batch: int, workers: int) -> Iterable[object]:
    """Return our loader over several epochs."""
    samples = TrainingSamples(DataConfig(shards, CROP_PX, CROP_PX, batch, workers), seed=0)
    return batches(samples, RankBatches(0, 10**6, batch, 0, 1), workers, pin_memory=False)


def as_float(batch: Any) -> None:
    """Do what the trainer does on the device."""
    _ = batch.images[0].hr.float() / 255, batch.images[0].lq.float() / 255


def endless(loader: Iterable[object]) -> Iterator[object]:
    """Go on with the next epoch."""
    while True:
        yield from loader


def measure(
    read: Callable[[str], Iterator[object]], clock: Callable[[], float], count: int, batch: int, repeats: int
) -> dict[str, list[float]]:
    """Return crops a second of each way, one value a repeat, in turns."""
    loaders = {way: read(way) for way in WAYS}
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    for loader in loaders.values():
        next(loader)
    for _ in range(repeats):
        for way, loader in loaders.items():
            for _ in range(16):  # what its workers prepared while others were measured does not count
                next(loader)
            start = clock()
            for _ in range(count // batch):
                item = next(loader)
                if way == WAYS[2]:
                    as_float(item)
            speeds[way].append(count // batch * batch / (clock() - start))
    return speeds


def rows_of(clock: str, speeds: dict[str, list[float]]) -> list[Row]:
    """Return the rows of one clock."""
    rows = []
    for side, values in speeds.items():
        faster, faster_range = speed_up(values, speeds[WAYS[0]])  # these are speeds, not seconds
        spread = {"crops/s": extremes(values), "speed-up": faster_range}
        targets = {} if side == WAYS[0] else {"speed-up": 2.0}
        rows.append(row_of(COLUMNS, clock, side, statistics.median(values), faster, spread=spread, targets=targets))
    return rows


def main() -> None:
    """Write both datasets, read both, publish the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--reference", type=Path, required=True, help="checkout of SeD")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos of 480 px or more")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crops", type=int, default=256, help="for each value")
    parser.add_argument("--repeats", type=int, default=7)
    add_json_argument(parser)
    options = parser.parse_args()
    options.threads = 1
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_classical(options.photos, folder / "shards")
        write_folder(folder / "shards", folder / "png")
        files = [path.stat().st_size for path in (folder / "png").rglob("*.png")]
        size_mib = ShardSet.open(folder / "shards").manifest.size_bytes / 2**20
        print(f"{len(files) // 2} sub-images; PNG folder {np.sum(files) / 2**20:.0f} MiB, shards {size_mib:.0f} MiB")

        def read(way: str, workers: int) -> Iterator[object]:
            if way == WAYS[0]:
                return endless(reference_loader(options.reference, folder / "png", options.batch, workers))
            return iter(our_loader(folder / "shards", options.batch, workers))

        sizes = (options.crops, options.batch, options.repeats)
        alone = measure(lambda way: read(way, 0), time.process_time, *sizes)
        rows = rows_of("processor, no workers", alone)
        if options.workers:
            shared = measure(lambda way: read(way, options.workers), time.perf_counter, *sizes)
            rows += rows_of(f"wall, {options.workers} workers", shared)
        publish("reading", COLUMNS, rows, options, libraries=("torch", "opencv-python-headless"))


if __name__ == "__main__":
    main()
