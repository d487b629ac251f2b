"""How fast are shards written, against a bare loop and against BasicSR's `extract_subimages`?

The job's own functions (survey, plan, write, on a local Ray with two workers) against two processes that do nothing
but decode, crop and encode the same sub-images with the same encoder, and against the reference's script on the same
photos at the same compression level. Ways alternate; beside the seconds on the clock there are those of the
processors, of all processes of a way together, which other programs on the machine disturb less. Survey, hashing,
tars, sidecars and fsync count for the job; the start of Ray, of the pools and their imports does not, nor does
removing what was written.

`--plan N` measures the driver instead: it plans N invented photos, in a process of its own.

Run:
    git clone https://github.com/XPixelGroup/BasicSR /tmp/BasicSR    # and opencv-python-headless for it
    python benchmarks/shard_writing.py PHOTOS [PHOTOS ...] --reference /tmp/BasicSR
    python benchmarks/shard_writing.py --plan 100000
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from _measure import import_script, resident_mib
from _origin import add_json_argument, extremes, publish, speed_up
from _tables import Column, Row, label, mib, ratio, row_of, seconds

from jobs.ray_tasks import RaySession, ray_session
from shards.config import ShardConfig
from shards.degradation.bicubic import downscale
from shards.format.photos import decode_photo
from shards.format.png import ENCODER, encode_png
from shards.write.dataset import survey_and_plan, write
from shards.write.plan import make_plan, write_plan
from shards.write.sources import SourceFile, discover
from shards.write.subimages import cut_side, grid
from shards.write.survey import Photo
from shards.write.tasks import shard_tasks

Task = Literal["classical", "realworld"]
NUM_PROCESSES = 2
SIZE_PX, STRIDE_PX, SCALE = 480, 240, 4
COLUMNS = (
    label("task"),
    label("method"),
    seconds("wall s"),
    ratio("of the bare loop's speed"),
    seconds("CPU s"),
    ratio("of the bare loop's, by CPU s"),
    mib("peak MiB of a worker"),
)
PLANS = (
    label("photos", ","),
    Column("sub-images", ","),
    Column("shards", ","),
    seconds("s", ".1f"),
    seconds("CPU s", ".1f"),
    mib("peak MiB above imports"),
)
LIBRARIES = ("ray", "numpy", "pillow")


@dataclass(frozen=True)
class Timing:
    """One run of one way."""

    wall_s: float
    cpu_s: float


def settings(sources: Sequence[Path], output: Path, degradation: Task) -> ShardConfig:
    """The paper's sub-images; a photo at the seam of two shards is decoded for both, so they are not too small."""
    return ShardConfig(
        tuple(sources), output, degradation, SCALE, SIZE_PX, STRIDE_PX, 1, 0, 64.0, max_reject_fraction=1.0
    )


def cut_and_encode(work: tuple[Path, bool]) -> int:
    """The bare loop's body: decode, crop, encode; returns how many sub-images."""
    path, with_lq = work
    photo = decode_photo(path.read_bytes(), max_pixels=10**8)
    height_px, width_px = (cut_side(side, SCALE) for side in photo.shape[:2])
    photo = np.ascontiguousarray(photo[:height_px, :width_px])
    small = downscale(photo, SCALE) if with_lq else None
    positions = grid(height_px, width_px, scale=SCALE, sub_image_px=SIZE_PX, stride_px=STRIDE_PX)
    for top, left in positions:
        encode_png(photo[top : top + SIZE_PX, left : left + SIZE_PX])
        if small is not None:
            encode_png(small[top // SCALE : (top + SIZE_PX) // SCALE, left // SCALE : (left + SIZE_PX) // SCALE])
    return len(positions)


def cpu_s_below(*roots: psutil.Process) -> float:
    """Processor seconds of processes and all below them, living and waited for."""
    total_s = 0.0
    for root in roots:
        for process in [root, *root.children(recursive=True)]:
            times = process.cpu_times()
            total_s += times.user + times.system + times.children_user + times.children_system
    return total_s


def timed(body: Callable[[Path], object]) -> Timing:
    """Run something with a new folder and time it with all its processes; removing the folder does not count."""
    here = psutil.Process()
    with tempfile.TemporaryDirectory(prefix="shard-writing-") as folder:
        cpu_s, start_s = cpu_s_below(here), time.perf_counter()
        body(Path(folder))
        return Timing(time.perf_counter() - start_s, cpu_s_below(here) - cpu_s)


def job_once(config: ShardConfig, sources: tuple[SourceFile, ...], session: RaySession, folder: Path) -> None:
    """Survey, plan and write into a new folder."""
    config = replace(config, output=folder)
    write(survey_and_plan(config, sources, (), session.executor), folder, sources, session.executor)


def load_reference(checkout: Path) -> Any:
    """Import the script as it is; of its package only the function that lists a folder."""
    utils = types.ModuleType("basicsr.utils")
    vars(utils)["scandir"] = lambda folder, full_path: (str(file) for file in sorted(Path(folder).iterdir()))
    sys.modules |= {"basicsr": types.ModuleType("basicsr"), "basicsr.utils": utils}
    return import_script(checkout / "scripts" / "data_preparation" / "extract_subimages.py")


def reference_once(module: Any, photos: Path, level: int, folder: Path) -> None:
    """The script's own main function on a folder of photos, two processes."""
    module.extract_subimages(
        {
            "n_thread": NUM_PROCESSES,
            "compression_level": level,
            "input_folder": str(photos),
            "save_folder": f"{folder}/sub",
            "crop_size": SIZE_PX,
            "step": STRIDE_PX,
            "thresh_size": 0,
        }
    )


def peak_mib_of_workers() -> float:
    """Highest resident memory that any Ray worker has had."""
    peaks = []
    for process in psutil.Process().children(recursive=True):
        if process.cmdline() and process.cmdline()[0].startswith(("ray::IDLE", "ray::write", "ray::survey")):
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            peaks.append(int(found[1]) / 1024 if found else 0.0)
    return max(peaks, default=0.0)


def compare(sources: Sequence[Path], degradation: Task, repeats: int, reference: Path | None) -> list[Row]:
    """Time all methods, alternating, and return their rows."""
    config = settings(sources, Path("unused"), degradation)
    with (
        tempfile.TemporaryDirectory(prefix="shard-writing-") as scratch,
        ray_session(num_cpus=NUM_PROCESSES) as session,
        multiprocessing.get_context("spawn").Pool(NUM_PROCESSES) as pool,
    ):
        files = discover(config.source)
        plan = survey_and_plan(config, files, (), session.executor, cut=False)[0]
        paths = {file.name: file.path for file in files}
        used = [SourceFile(photo.name, paths[photo.name]) for photo in plan.photos]
        links = Path(scratch, "photos")
        links.mkdir()
        for number, file in enumerate(used):
            (links / f"{number:04d}{file.path.suffix}").symlink_to(file.path)
        work = [(file.path, degradation == "classical") for file in used]
        ways: dict[str, Callable[[Path], object]] = {
            "bare loop": lambda folder: list(pool.imap_unordered(cut_and_encode, work)),
            "job": lambda folder: job_once(config, tuple(used), session, folder),
        }
        if reference is not None and degradation == "realworld":
            module = load_reference(reference)
            level = int(re.findall(r"level (\d)", ENCODER)[0])
            ways["extract_subimages"] = lambda folder: reference_once(module, links, level, folder)
        timings = alternate(ways, repeats)
        peak_mib = peak_mib_of_workers()
    print(f"{degradation}: {len(plan.photos)} photos, {plan.num_samples} sub-images; {ENCODER}", flush=True)
    return rows_of(degradation, timings, peak_mib)


def alternate(ways: dict[str, Callable[[Path], object]], repeats: int) -> dict[str, list[Timing]]:
    """Run every way once unmeasured, then `repeats` times in turn."""
    timings: dict[str, list[Timing]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, body in ways.items():
            timing = timed(body)
            if repeat:
                timings[name].append(timing)
    return timings


def rows_of(degradation: Task, timings: dict[str, list[Timing]], peak_mib: float) -> list[Row]:
    """Return the rows of one task, speeds relative to the bare loop."""
    walls = {name: [timing.wall_s for timing in found] for name, found in timings.items()}
    cpus = {name: [timing.cpu_s for timing in found] for name, found in timings.items()}
    rows = []
    for name in timings:
        wall, wall_range = speed_up(walls["bare loop"], walls[name])
        cpu, cpu_range = speed_up(cpus["bare loop"], cpus[name])
        spread = {"wall s": extremes(walls[name]), "of the bare loop's speed": wall_range}
        spread["of the bare loop's, by CPU s"] = cpu_range
        medians = statistics.median(walls[name]), statistics.median(cpus[name])
        cells = (degradation, name, medians[0], wall, medians[1], cpu, peak_mib if name == "job" else None)
        targets = {"of the bare loop's speed": 0.9, "of the bare loop's, by CPU s": 0.9}
        rows.append(row_of(COLUMNS, *cells, spread=spread, targets=targets if name == "job" else {}))
    return rows


def invented(number: int) -> Photo:
    """A photo as a survey would describe it."""
    name = hashlib.sha256(str(number).encode()).hexdigest()
    return Photo(f"DF2K/{name[:24]}.png", name, 4_000_000 + number, 1404 + number % 7, 2040, name[::-1])


def plan_many(num_photos: int) -> Row:
    """Plan invented photos as the driver does, up to tasks and manifest; return time and memory."""
    start_s, cpu_s = time.perf_counter(), time.process_time()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    idle_mib = resident_mib("VmRSS")
    photos = [invented(number) for number in range(num_photos)]
    with tempfile.TemporaryDirectory(prefix="shard-writing-") as folder:
        config = replace(settings((Path("unused"),), Path(folder), "classical"), shard_size_mib=192.0)
        plan = make_plan(config, photos, [])
        write_plan(config.output, plan)
        tasks = shard_tasks(plan, config.output, {photo.name: Path(photo.name) for photo in photos})
    spent = (time.perf_counter() - start_s, time.process_time() - cpu_s)
    return row_of(PLANS, num_photos, plan.num_samples, len(tasks), *spent, resident_mib("VmHWM") - idle_mib)


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else "")
    parser.add_argument("photos", nargs="*", type=Path, metavar="PHOTOS", help="folders of photos")
    parser.add_argument("--reference", type=Path, help="checkout of BasicSR")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--degradation", nargs="+", default=["realworld", "classical"])
    parser.add_argument("--plan", type=int, metavar="N", help="plan N invented photos instead")
    add_json_argument(parser)
    arguments = parser.parse_args()
    if arguments.plan:
        publish("shard-planning", PLANS, [plan_many(arguments.plan)], arguments, libraries=LIBRARIES)
        return
    if not arguments.photos:
        parser.error("give folders of photos, or --plan N")
    rows = [
        row
        for degradation in arguments.degradation
        for row in compare(arguments.photos, degradation, arguments.repeats, arguments.reference)
    ]
    publish("shard-writing", COLUMNS, rows, arguments, libraries=LIBRARIES)


if __name__ == "__main__":
    main()
