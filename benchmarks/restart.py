"""What does a restart cost: how long from the death of a training process to the next step of the run?

Each run trains on one image per step, writes a checkpoint after every second one, and gets SIGKILL after its fourth
step. The same command then resumes it, as a launcher would; the time counts from the kill on. One process on a CPU:
what a launcher, a scheduler and a GPU's compilation add is not in it.

* imports: until the job's own code begins, the start of Python included.
* networks: built, extractor included; the checkpoint found, checked by its hash and loaded; data opened.
* next step: until its report; it holds what a first step allocates.

Run:
    python benchmarks/restart.py --repeats 3
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _origin import add_json_argument, extremes, publish
from _shards import write_classical
from _tables import Column, Row, label, mib, row_of, seconds
from PIL import Image

ROOT = Path(__file__).parents[1]
COLUMNS: tuple[Column, ...] = (
    label("preset"),
    mib("checkpoint, MiB"),
    seconds("imports s"),
    seconds("networks and checkpoint s"),
    seconds("next step s"),
    seconds("kill to next step s"),
    seconds("a later step s"),
)
EVENTS = ("main", "batch", "report")
NUM_STEPS = 4
"""Until the kill: two checkpoints."""
LIMIT_S = 600.0


def train(arguments: list[str], events: Path) -> None:
    """Run the job, and note when its parts begin: name and time of each, one per line."""
    from jobs import train_sed
    from pipeline.run.session import Session
    from pipeline.run.training import LeaderScreen

    def note(name: str) -> None:
        with events.open("a") as stream:
            stream.write(f"{name} {time.time()}\n")

    load, report = Session._loader, LeaderScreen.report

    def noted_loader(self: Session) -> Iterator[Any]:
        for batch in load(self):
            note("batch")
            yield batch

    def noted_report(self: LeaderScreen, images_seen: int, values: dict[str, float]) -> None:
        note("report")
        report(self, images_seen, values)

    Session._loader = noted_loader
    LeaderScreen.report = noted_report
    note("main")
    sys.exit(train_sed.main(arguments))


@contextlib.contextmanager
def started(arguments: list[str], events: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the job, which writes its events to a file in its folder; kill it at the end of the block."""
    folder = events.parent
    events.touch()
    script = "import sys; sys.path[:0] = sys.argv[2:4]; import restart; from pathlib import Path; "
    script += "restart.train(sys.argv[4:], Path(sys.argv[1]))"
    command = [sys.executable, "-c", script, str(events), str(Path(__file__).parent), str(ROOT), *arguments]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "OMP_NUM_THREADS": "1"}
    with (folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(process: subprocess.Popen[bytes], events: Path, num_reports: int) -> dict[str, list[float]]:
    """Return the times of all events, once there are as many reports."""
    deadline_s = time.monotonic() + LIMIT_S
    while True:
        found: dict[str, list[float]] = {name: [] for name in EVENTS}
        for line in events.read_text().splitlines():
            found[line.partition(" ")[0]].append(float(line.partition(" ")[2]))
        if len(found["report"]) >= num_reports:
            return found
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"no {num_reports} reports from the job; see output.txt in its folder")
        time.sleep(0.005)


def measure(preset: str, options: argparse.Namespace) -> Row:
    """Kill and restart a run of a preset."""
    parts: list[tuple[float, float, float, float, float]] = []
    checkpoint_bytes = 0
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _write_photo(folder / "photos" / "0.png")
            write_classical(folder / "photos", folder / "shards", sub_image_px=128, stride_px=64)
            arguments = [preset, *_settings(folder, options)]
            with started(arguments, folder / "first") as process:
                reports = wait_for(process, folder / "first", NUM_STEPS)["report"]
                killed_s = time.time()
            with started(arguments, folder / "second") as process:
                again = wait_for(process, folder / "second", 1)
            main, batch, report = (again[event][0] for event in EVENTS)
            later_s = statistics.median(after - before for before, after in itertools.pairwise(reports))
            parts.append((main - killed_s, batch - main, report - batch, report - killed_s, later_s))
            kept = [path for path in (folder / "run").rglob("*.safetensors") if "checkpoint" in str(path)]
            newest = max((path.parent for path in kept), key=lambda path: path.stat().st_mtime)
            checkpoint_bytes = sum(path.stat().st_size for path in newest.iterdir())
    columns = list(zip(*parts, strict=True))
    medians = [statistics.median(one) for one in columns]
    spread = {"kill to next step s": extremes(list(columns[3]))}
    row = row_of(COLUMNS, preset, checkpoint_bytes / 2**20, *medians, spread=spread)
    print(row, flush=True)
    return row


def _settings(folder: Path, options: argparse.Namespace) -> list[str]:
    settings: dict[str, object] = {
        "run-dir": folder / "run",
        "data.shards": folder / "shards",
        "data.batch-size": 1,
        "data.crop-px": options.crop_px,
        "data.canvas-px": options.crop_px,
        "data.num-workers": 0,
        "generator.initial-weights": "random",
        "semantics.weights": "random",
        "losses.perceptual-weights": "random",
        "schedule.total-images": 1000,
        "report.every-images": 1,
        "report.checkpoint-every-images": 2,
        "report.validate-every-images": 1000,
        "runtime.precision": "float32",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [*words, "--runtime.no-compile", "--schedule.milestones-images", "--report.validation-sets"]


def _write_photo(path: Path) -> None:
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)).save(path)


def main() -> None:
    """Measure and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["rrdb_sed_p_x4", "swinir_sed_p_x4"])
    parser.add_argument("--crop-px", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    add_json_argument(parser)
    options = parser.parse_args()
    options.threads = 1
    publish("restart", COLUMNS, [measure(preset, options) for preset in options.presets], options)


if __name__ == "__main__":
    main()
