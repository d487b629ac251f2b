"""What does one process bear in a run of 1,000 nodes: sampling order, sharding driver, rendezvous and roll call?

Simulations, in that no cluster runs; the code that is measured is the run's own. One rank of 8,192 draws its batches
from 10^6 shards. A driver plans as many shards of invented photos, and writes and reads their manifest; it checks real,
tiny shards for being finished. Ranks call the roll and form gloo's groups over a store in memory that counts requests.
Each part has a process of its own; times are those of its processor.

Run:
    python benchmarks/cluster_scale.py
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from _origin import add_json_argument, publish
from _tables import Column, Row, label, mib, ratio, row_of, seconds
from data_order import in_child, write_large_manifest
from shard_writing import invented, settings

from shards.format.manifest import read_manifest
from shards.format.sidecars import find_all_finished
from shards.format.tars import publish_shard
from shards.read.order import order_samples
from shards.write.plan import make_plan, read_plan, write_plan
from shards.write.tasks import shard_tasks

NUM_RANKS, SHARE, SAMPLES_A_SHARD = 8192, 8, 1000
ORDER = (
    label("ranks", ","),
    label("shards", ","),
    label("window, shards", ","),
    seconds("first batch, CPU s", ".3f"),
    seconds("later ones, CPU ms", ".3f"),
    mib("MiB per process"),
)
DRIVER = (
    label("work of the driver"),
    label("photos", ","),
    label("shards", ","),
    seconds("CPU s", ".1f"),
    mib("peak MiB"),
    Column("file, MiB", ",.1f"),
)
ROLL = (
    label("work"),
    label("ranks", ","),
    ratio("requests to the store per rank", "lower", ",.1f"),
    ratio("KiB read of it per rank", "lower", ",.1f"),
    ratio("sockets per rank", "lower", ",.1f"),
    seconds("CPU ms per rank", ".1f"),
)


def first_batches(num_ranks: int, num_shards: int, window_shards: int) -> tuple[float, float]:
    """Draw one rank's first batch after the middle of an epoch, and 100 more; return CPU seconds."""
    from pipeline.data.samples import RankBatches

    start_s = time.process_time()
    order = order_samples([SAMPLES_A_SHARD] * num_shards, 1, window_shards)
    batch = num_ranks * SHARE
    middle = num_shards * SAMPLES_A_SHARD // 2 // batch * batch
    batches = iter(RankBatches(middle, 101, batch, num_ranks // 2, num_ranks))
    [order.index(position) for position in next(batches)]
    first_s = time.process_time() - start_s
    for positions in batches:
        [order.index(position) for position in positions]
    return first_s, (time.process_time() - start_s - first_s) / 100


def import_batches() -> tuple[float, float]:
    """Do nothing but the imports of `first_batches`."""
    from pipeline.data.samples import RankBatches

    return float(RankBatches is None), 0.0


def plan(num_photos: int, num_shards: int) -> tuple[float, float]:
    """Plan photos as the driver does, up to the tasks; return CPU seconds, and MiB of the plan's file."""
    start_s = time.process_time()
    photos = [invented(number) for number in range(num_photos)]
    with tempfile.TemporaryDirectory() as folder:
        config = settings((Path("unused"),), Path(folder), "classical")
        # A photo has 40 sub-images of about 0.5 MiB, in classical mode with their LQ.
        config = replace(config, shard_size_mib=0.475 * 40 * num_photos / num_shards)
        made = make_plan(config, photos, [])
        write_plan(config.output, made)
        tasks = shard_tasks(made, config.output, {photo.name: Path(photo.name) for photo in photos})
        assert 0.9 < len(tasks) / num_shards < 1.1, len(tasks)
        return time.process_time() - start_s, (Path(folder) / made.file_name).stat().st_size / 2**20


def resume(num_photos: int, num_shards: int) -> tuple[float, float]:
    """Read a plan back, as a driver does that resumes; return its CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        config = settings((Path("unused"),), Path(folder), "classical")
        config = replace(config, shard_size_mib=0.475 * 40 * num_photos / num_shards)
        write_plan(config.output, make_plan(config, [invented(number) for number in range(num_photos)], []))
        start_s = time.process_time()
        read_plan(config.output, 0)
        return time.process_time() - start_s, 0.0


def write_manifest_of(num_shards: int) -> tuple[float, float]:
    """Write a manifest; return CPU seconds, and its MiB."""
    with tempfile.TemporaryDirectory() as folder:
        start_s = time.process_time()
        write_large_manifest(Path(folder), num_shards)
        return time.process_time() - start_s, (Path(folder) / "manifest.json").stat().st_size / 2**20


def read_manifest_in(folder: str) -> tuple[float, float]:
    """Read a manifest; return CPU seconds, and its MiB."""
    start_s = time.process_time()
    assert read_manifest(Path(folder)).num_samples
    return time.process_time() - start_s, (Path(folder) / "manifest.json").stat().st_size / 2**20


def check_finished(folder: str, num_shards: int) -> tuple[float, float]:
    """Check shards for being finished; return CPU seconds, and MiB of their sidecars."""
    headers = {f"images-{number:06d}": {"kind": "images"} for number in range(num_shards)}
    start_s = time.process_time()
    assert len(find_all_finished(Path(folder), headers)) == num_shards
    size = sum(path.stat().st_size for path in Path(folder).glob("*.json"))
    return time.process_time() - start_s, size / 2**20


def write_tiny_shards(folder: Path, num_shards: int, num_samples: int) -> None:
    """Write shards with as many members as real ones, of one byte each."""
    for number in range(num_shards):
        keys = [f"photo-{number:06d}-{place:016d}-00240-00480" for place in range(num_samples)]
        members = [(f"{key}.{part}", b"0") for key in keys for part in ("png", "lq.png", "json")]
        publish_shard(folder, f"images-{number:06d}", iter(members), {"kind": "images"})


class CountingStore:
    """A store in memory for all ranks of a process."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.num_requests = self.num_bytes = 0
        self.changed = threading.Condition()

    def set_timeout(self, timeout: datetime.timedelta) -> None:
        """Accept any; nothing here takes time."""

    def append(self, key: str, value: str) -> None:
        """Append to a value."""
        with self.changed:
            self.num_requests += 1
            self.values[key] = self.values.get(key, b"") + value.encode()

    def get(self, key: str) -> bytes:
        """Return a value."""
        with self.changed:
            self.num_requests += 1
            self.num_bytes += len(self.values[key])
            return self.values[key]


def call_roll(num_ranks: int) -> tuple[CountingStore, int, float]:
    """Let up to 64 of some ranks call the roll at once, after all others but the last, which is lost.

    Returns:
        The store, how many ranks called, and their CPU seconds.
    """
    from pipeline.runtime.roll_call import RollCall

    store, hosts = CountingStore(), [f"node{rank // 8}" for rank in range(num_ranks)]
    callers = range(min(64, num_ranks - 1))
    store.values["roll_call"] = "".join(f"{rank} " for rank in range(len(callers), num_ranks - 1)).encode()
    start_s = time.process_time()
    with ThreadPoolExecutor(len(callers)) as pool:
        found = list(pool.map(lambda rank: RollCall(rank, hosts, store, 60.0).missing(), callers))
    assert all(missing == [num_ranks - 1] for missing in found)
    return store, len(callers), time.process_time() - start_s


def form_group(num_ranks: int) -> tuple[Any, float, float]:
    """Form gloo's group of all ranks, each a thread; return the store, sockets and CPU seconds."""
    import torch.distributed as dist
    from torch._C._distributed_c10d import Store

    class GlooStore(Store):
        """A store that gloo may call, and that counts."""

        def __init__(self) -> None:
            super().__init__()
            self.values: dict[str, bytes] = {}
            self.num_requests = self.num_bytes = 0
            self.changed = threading.Condition()

        def set(self, key: str, value: Any) -> None:
            with self.changed:
                self.num_requests += 1
                self.values[key] = bytes(value)
                self.changed.notify_all()

        def get(self, key: str) -> bytes:
            with self.changed:
                self.num_requests += 1
                self.changed.wait_for(lambda: key in self.values)
                self.num_bytes += len(self.values[key])
                return self.values[key]

        def wait(self, keys: list[str], timeout: Any = None) -> None:
            with self.changed:
                self.num_requests += 1
                self.changed.wait_for(lambda: all(key in self.values for key in keys))

        def has_extended_api(self) -> bool:
            return False

    store, before, start_s = GlooStore(), sum(1 for _ in Path("/proc/self/fd").iterdir()), time.process_time()
    limit = datetime.timedelta(seconds=120)
    with ThreadPoolExecutor(num_ranks) as pool:
        groups = list(pool.map(lambda rank: dist.ProcessGroupGloo(store, rank, num_ranks, limit), range(num_ranks)))
    sockets = sum(1 for _ in Path("/proc/self/fd").iterdir()) - before
    del groups
    return store, float(sockets), time.process_time() - start_s


def order_rows(num_ranks: int, num_shards: int) -> list[Row]:
    """Return the rows of the sampling order."""
    imports_mib = in_child(import_batches)[2]
    rows = []
    for window in (0, 64, 4096):
        first_s, later_s, peak = in_child(first_batches, num_ranks, num_shards, window)
        rows.append(row_of(ORDER, num_ranks, num_shards, window, first_s, later_s * 1e3, peak - imports_mib))
    return rows


def driver_rows(num_photos: int, num_shards: int) -> list[Row]:
    """Return the rows of the sharding driver's bookkeeping."""
    few = num_shards // 100
    works: list[tuple[str, int | None, int, Callable[..., tuple[float, float]], tuple[int, ...]]] = [
        ("plan", num_photos, few, plan, (num_photos, few)),
        ("plan", num_photos, num_shards, plan, (num_photos, num_shards)),
        ("resume from the plan", num_photos, few, resume, (num_photos, few)),
        ("write the manifest", None, num_shards, write_manifest_of, (num_shards,)),
    ]
    rows = []
    for name, photos, shards, work, arguments in works:
        cpu_s, size_mib, peak = in_child(work, *arguments)
        rows.append(row_of(DRIVER, name, photos, shards, cpu_s, peak, size_mib or None))
    with tempfile.TemporaryDirectory() as folder:
        write_large_manifest(Path(folder), num_shards)
        cpu_s, size_mib, peak = in_child(read_manifest_in, folder)
        rows.append(row_of(DRIVER, "read the manifest, as every rank does", None, num_shards, cpu_s, peak, size_mib))
    checked = max(1, num_shards // 10_000)
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_shards(Path(folder), checked, 400)
        cpu_s, size_mib, peak = in_child(check_finished, folder, checked)
        rows.append(row_of(DRIVER, "find finished shards, 400 samples each", None, checked, cpu_s, peak, size_mib))
    return rows


def rendezvous_rows(num_ranks: int) -> list[Row]:
    """Return the rows of roll call and rendezvous."""
    rows = []
    for ranks in (8, 128, num_ranks):
        store, callers, cpu_s = call_roll(ranks)
        cells = store.num_requests / callers, store.num_bytes / callers / 2**10, None, cpu_s * 1e3 / callers
        rows.append(row_of(ROLL, "roll call, one rank lost", ranks, *cells))
    for ranks in (size for size in (8, 16, 32, 64) if size <= num_ranks):
        store, sockets, cpu_s = form_group(ranks)
        cells = store.num_requests / ranks, store.num_bytes / ranks / 2**10, sockets / ranks, cpu_s * 1e3 / ranks
        rows.append(row_of(ROLL, "gloo's group", ranks, *cells))
    return rows


def main() -> None:
    """Measure and publish the three tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ranks", type=int, default=NUM_RANKS)
    parser.add_argument("--shards", type=int, default=10**6)
    parser.add_argument("--photos", type=int, default=10**5)
    add_json_argument(parser)
    options = parser.parse_args()
    libraries = ("numpy", "torch")
    publish("scale-order", ORDER, order_rows(options.ranks, options.shards), options, libraries=libraries)
    publish("scale-rendezvous", ROLL, rendezvous_rows(options.ranks), options, libraries=libraries)
    publish("scale-driver", DRIVER, driver_rows(options.photos, options.shards), options, libraries=libraries)


if __name__ == "__main__":
    main()
