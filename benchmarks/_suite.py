"""All benchmarks that a CPU can run, in one call: tables of docs are rewritten, and what got worse is listed."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks._document import rewrite
from benchmarks._tables import list_worse, merge, read_table, write_table

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
INPUT = re.compile(r"\{([\w-]+)\}")
PHOTOS = "photos"
"""The input that `--photos` names; every other one is a folder of `--peers`."""
PATIENCE = 8
"""A call is ended after as many times its expected minutes; a CPU without AVX-512 takes four times some of them."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One call of a benchmark.

    Attributes:
        benchmark: Name of its file, without the suffix.
        minutes: What it takes on two cores, about.
        arguments: `{NAME}` stands for a peer's checkout or the folder of photos, without which the task is skipped.
        tiny: Added in order to see in seconds that it works; None where it cannot be that small.
        optional: Arguments that are given where their input is there.
        module: What the peer imports and this project does not install; without it, as without the peer.
    """

    benchmark: str
    minutes: float
    arguments: str = ""
    tiny: str | None = None
    optional: str = ""
    module: str = ""

    @property
    def has_module(self) -> bool:
        """Whether the peer can be imported."""
        return not self.module or importlib.util.find_spec(self.module) is not None

    def missing(self, inputs: Mapping[str, Path]) -> list[str]:
        """Return the inputs and modules without which it cannot run."""
        modules = [] if self.has_module or self.optional else [self.module]
        return [*(name for name in INPUT.findall(self.arguments) if name not in inputs), *modules]

    def command(self, inputs: Mapping[str, Path], *, tiny: bool) -> list[str]:
        """Return the words of its command."""
        is_there = self.has_module and set(INPUT.findall(self.optional)) <= set(inputs)
        optional = self.optional if is_there else ""
        words = " ".join([self.arguments, optional, (self.tiny or "") if tiny else ""]).split()
        filled = [INPUT.sub(lambda match: str(inputs[match[1]]), word) for word in words]
        return [sys.executable, str(FOLDER / f"{self.benchmark}.py"), *filled]

    def __str__(self) -> str:
        return f"{self.benchmark} {self.arguments}".strip()


SUITE = (
    Task("bound", 0.5, "", "--presets demo_psnr rrdb_psnr_x4 --batch 1"),
    Task(
        "data_order", 0.5, "--permutation-samples 10000000",
        "--samples 10000000 --shards 100 --permutation-samples 1000",
    ),
    Task("cluster_scale", 1.4, "", "--ranks 8 --shards 1000 --photos 100"),
    Task("checkpoint_pause", 1.0, "--repeats 7", "--repeats 1 --crop-px 32"),
    Task("report_cost", 1.0, "--repeats 100", "--repeats 2"),
    Task(
        "upscaling", 4.0, "--sizes 800x600 --repeats 3", "--sizes 24x16 --file-size 24x16 --files 2 --repeats 1",
        "--helper {Real-ESRGAN}",
    ),
    Task("ops", 3.0, "--repeats 5", "--crop-px 32 --repeats 1"),
    Task("degradation", 0.5, "--parts memory", "--memory-batches 1"),
    Task("degradation", 2.5, "--parts time --reference {BasicSR} --model {Real-ESRGAN} --repeats 3", "--batch 1"),
    Task("shard_writing", 0.5, "--plan 100000", "--plan 100"),
    Task("generators", 4.0, "--repeats 1", "--only compact spandrel:SAFMN"),
    Task("shard_writing", 3.8, "{photos} --repeats 2", optional="--reference {BasicSR}", module="cv2"),
    Task("reading", 2.0, "--reference {SeD} --photos {photos} --repeats 3 --crops 512", module="cv2"),
    Task("feature_codecs", 1.0, "--photos {photos} --crops 32"),
    Task(
        "feature_codecs", 1.5, "--photos {photos} --crops 32 --architecture open_clip:RN50 --weights random",
    ),
    Task("discriminator_step", 3.5, "--reference {SeD} --batch 1 --repeats 2"),
    Task("training_step", 6.0, "--reference {SeD} --parts step --repeats 3"),
    Task("training_step", 1.0, "--parts ranks --networks P+SeD --crop-px 128 --repeats 5"),
    Task(
        "training_step", 2.0, "--parts overhead --networks P+SeD --crop-px 128 --batch 2 --steps 8",
        "--crop-px 64 --blocks 1 --steps 2",
    ),
)  # fmt: skip
"""In order: what needs nothing but this repository comes first."""


def main(argv: Sequence[str]) -> int:
    """Run tasks, rewrite tables and documents, and list what got worse, was skipped and failed; 1 if any failed."""
    options = _parse(argv)
    inputs = _inputs(options)
    chosen = [task for task in SUITE if not options.run or task.benchmark in options.run]
    if options.tiny:
        chosen = [task for task in chosen if task.tiny is not None]
    skipped = {str(task): task.missing(inputs) for task in chosen if task.missing(inputs)}
    chosen = [task for task in chosen if str(task) not in skipped]
    worse, failed = [], {}
    for number, task in enumerate(chosen, 1):
        left = sum(later.minutes for later in chosen[number - 1 :])
        print(f"\n[{number}/{len(chosen)}] {task} (about {task.minutes:g} min, {left:g} min left in all)", flush=True)
        start = time.monotonic()
        fault, lines = _run(task, inputs, options)
        print(f"[{number}/{len(chosen)}] took {(time.monotonic() - start) / 60:.1f} min", flush=True)
        worse += lines
        if fault:
            failed[str(task)] = fault
    changed = rewrite(options.docs)
    for path in changed:
        print(f"rewrote {path}")
    _print_end(worse, skipped, failed)
    return 1 if failed else 0


def _print_end(worse: Sequence[str], skipped: Mapping[str, list[str]], failed: Mapping[str, str]) -> None:
    print("\nWorse than before by more than the spread:" if worse else "\nNothing got worse by more than its spread.")
    for line in worse:
        print(f"  {line}")
    for name, missing in skipped.items():
        print(f"SKIPPED {name}: not there: {', '.join(missing)}; its rows stay as they were")
    for name, fault in failed.items():
        print(f"FAILED {name}: {fault}")


def _run(task: Task, inputs: Mapping[str, Path], options: argparse.Namespace) -> tuple[str, list[str]]:
    """Run a task and merge its tables into the files of docs; return what failed, and what got worse."""
    # Without a GPU, and from this repository whatever is installed.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": _python_path()}
    with tempfile.TemporaryDirectory() as folder:
        command = [*task.command(inputs, tiny=options.tiny), "--json", folder]
        fault = _call(command, environment, timeout_s=60 * PATIENCE * task.minutes)
        # A table is written when it is whole, so those before a failure count.
        return fault, _merge(Path(folder), options.docs / "benchmarks")


def _call(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> str:
    """Run a command to its end, or end it with all processes that it started; return what failed."""
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            code = process.wait(timeout_s)
            return f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            return f"not done after {timeout_s / 60:g} minutes"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _python_path() -> str:
    others = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(ROOT), *([others] if others else [])])


def _merge(new_tables: Path, tables: Path) -> list[str]:
    worse = []
    tables.mkdir(exist_ok=True)
    for path in sorted(new_tables.glob("*.json")):
        new = read_table(path)
        earlier = read_table(tables / path.name) if (tables / path.name).is_file() else None
        if earlier is not None:
            worse += list_worse(earlier, new)
        write_table(tables, merge(earlier, new))
    return worse


def _inputs(options: argparse.Namespace) -> dict[str, Path]:
    folders = [] if options.peers is None else [path for path in sorted(options.peers.iterdir()) if path.is_dir()]
    inputs = {path.name: path.resolve() for path in folders}
    return inputs if options.photos is None else inputs | {PHOTOS: options.photos.resolve()}


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = list(dict.fromkeys(task.benchmark for task in SUITE))
    parser.add_argument("--run", nargs="*", metavar="NAME", choices=names, help=f"default: all of {', '.join(names)}")
    parser.add_argument("--peers", type=Path, help="folder of checkouts: BasicSR, Real-ESRGAN, SeD; each is optional")
    parser.add_argument("--photos", type=Path, help="folder of 32 or more photos of at least 480 px")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="its benchmarks/*.json and *.md are rewritten")
    parser.add_argument("--tiny", action="store_true", help="small inputs, to see that it works; needs another --docs")
    options = parser.parse_args(argv)
    for folder in (options.peers, options.photos, options.docs):
        if folder is not None and not folder.is_dir():
            parser.error(f"{folder} is not a folder")
    if options.tiny and options.docs.resolve() == ROOT / "docs":
        parser.error("--tiny measures nothing; give another folder than the repository's with --docs")
    return options
