"""What does training cost on a GPU? All GPU tests and benchmarks in one call, into one JSON file and tables.

Every part runs in a process of its own, so that one that fails or hangs costs its own table alone; the file is written
after each row. The SeD release takes part where its checkout is given.

Run:
    git clone https://github.com/lbc12345/SeD /tmp/SeD
    python -m benchmarks --gpu --reference /tmp/SeD --output gpu.json
    python -m benchmarks --gpu --parts step parts --batches 8 32
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from _device import Row, describe_device
from _gpu_parts import PARTS
from _origin import commit, first_line
from _steps import NETWORKS

TINY = {"batch": 2, "batches": [2], "crop_px": 64, "blocks": 1, "rounds": 1, "steps": 1, "run_steps": 5}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print tables and write the file; returns how many parts failed."""
    options = parse(argv)
    result: dict[str, Any] = {
        "device": describe_device(options.device),
        "driver": driver(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "commit": commit(),
        "command": " ".join(["python -m benchmarks --gpu", *(sys.argv[1:] if argv is None else argv)]),
        "crop_px": options.crop_px,
        "parts": {},
        "failed": {},
    }
    deadline = time.monotonic() + 60 * options.minutes
    for name in options.parts:
        rows: list[Row] = []
        result["parts"][name] = rows
        start = time.monotonic()
        try:
            for row in in_process(name, options, deadline):
                rows.append(row)
                options.output.write_text(json.dumps(result, indent=1), encoding="utf-8")
        except PartFailedError as error:
            result["failed"][name] = str(error)
        options.output.write_text(json.dumps(result, indent=1), encoding="utf-8")
        print(f"\n## {PARTS[name][0]} ({time.monotonic() - start:.0f} s)\n{table(rows)}", flush=True)
    print(f"\n{result['device']}, driver {result['driver']}, {result['date']}, commit {result['commit']}")
    for name, fault in result["failed"].items():
        print(f"FAILED {name}: {fault}")
    print(f"wrote {options.output}")
    return len(result["failed"])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="checkout of github.com/lbc12345/SeD")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batches", nargs="+", type=int, default=[8], help="of a step; the other parts take the first")
    parser.add_argument("--crop-px", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5, help="the median is over these")
    parser.add_argument("--steps", type=int, default=4, help="steps per round")
    parser.add_argument("--run-steps", type=int, default=100, help="of the run of the job")
    parser.add_argument("--minutes", type=float, default=9.0, help="after these, parts that are left fail")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="everything small, to see that it works")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu --tiny tries the same code")
    options.blocks, options.batch = 23, options.batches[0]
    options.precision, options.compile, options.cuda_graphs, options.schedule = "float32", False, False, "separate"
    if options.tiny:
        vars(options).update(TINY)
    return options


class PartFailedError(Exception):
    """A part raised, died or took too long."""


def in_process(name: str, options: argparse.Namespace, deadline: float):
    """Yield the rows of a part as they come.

    Raises:
        PartFailedError: Says how.
    """
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(name, options, send))
    process.start()
    send.close()
    try:
        while True:
            if not receive.poll(max(0.0, deadline - time.monotonic())):
                raise PartFailedError("out of time")
            row = receive.recv()
            if row is None:
                return
            if isinstance(row, str):
                raise PartFailedError(row)
            print(f"  {name}: {row}", flush=True)
            yield row
    except EOFError:
        process.join()
        raise PartFailedError(f"its process ended with exit code {process.exitcode}") from None
    finally:
        process.join(5.0)
        process.kill()
        process.join()


def _measure(name: str, options: argparse.Namespace, pipe: Connection) -> None:
    try:
        for row in PARTS[name][1](options):
            pipe.send(row)
        pipe.send(None)
    except RuntimeError as error:
        # Out of memory, a failed kernel, a failed command. Anything else ends this process, which `in_process` reports.
        traceback.print_exc()
        pipe.send(f"{type(error).__name__}: {str(error)[:500]}")


def table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(key)) for key in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def driver() -> str:
    """Return the NVIDIA driver's version, where there is one."""
    return first_line(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])


if __name__ == "__main__":
    sys.exit(main())
