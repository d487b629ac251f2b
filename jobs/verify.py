"""Check every byte of a folder of shards, and that every image decodes to the pixels it should."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jobs.ray_tasks import ray_session
from jobs.shard import write
from jobs.terminal import EXIT_FAULTS, Progress, run_job, say
from shards.errors import InputError
from shards.format.storage import StoragePath, parse_path
from shards.read.verification import Fault, verify_folder, verify_shard
from shards.write.generations import read_generations
from shards.write.sources import discover

# Hashing and decoding release the interpreter's lock; each thread holds one tar in memory.
_NUM_THREADS = 4


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/verify.py --help`."""
    parser = argparse.ArgumentParser(
        prog="python jobs/verify.py",
        description="Re-hash and decode everything in a folder of shards, and list all faults. "
        "Exit code 0: every byte is as it was written; 1: there are faults; 2: no shards there.",
    )
    parser.add_argument("folder", type=parse_path, metavar="DIR", help="folder or URL that jobs/shard.py wrote")
    parser.add_argument(
        "--repair",
        type=Path,
        nargs="+",
        metavar="SOURCE",
        help="folders of photos that the shards were made from, in the same order; makes broken shards again",
    )
    arguments = parser.parse_args(argv)
    faults = verify(arguments.folder)
    for fault in faults:
        print(fault)
    if faults and arguments.repair:
        repair(arguments.folder, tuple(arguments.repair), faults)
        faults = verify(arguments.folder)
        for fault in faults:
            print(f"still there: {fault}")
    if faults:
        print(f"{len(faults)} fault(s) in {arguments.folder}; repair it with --repair SOURCE")
        return EXIT_FAULTS
    print(f"{arguments.folder} is whole")
    return 0


def repair(folder: StoragePath, source: tuple[Path, ...], faults: list[Fault]) -> None:
    """Make the broken shards of a folder again, and its manifest.

    Args:
        folder: Folder with its plans whole.
        source: Folders of the photos that it was made from.
        faults: What `verify` found.

    Raises:
        InputError: Photos are missing or have changed, or the plan is damaged.
    """
    plans = read_generations(folder)
    if not plans:
        raise InputError(f"{folder} has no plan.json to repair by; run jobs/shard.py with the settings of then")
    files = discover(source, flag="--repair")
    missing = {photo.name for plan in plans for photo in plan.photos} - {file.name for file in files}
    if missing:
        raise InputError(
            f"--repair {' '.join(map(str, source))} lacks {len(missing)} of the shards' photos, such as "
            f"{min(missing)}; give the folders that the shards were made from, in the same order"
        )
    shards = {shard.name for plan in plans for shard in plan.shards}
    broken = shards & {Path(fault.file).stem for fault in faults}
    say(f"making {len(broken)} of {len(shards)} shards again")
    for name in broken:
        (folder / f"{name}.json").unlink(missing_ok=True)
    with ray_session() as session:
        write(plans, folder, files, session)


def verify(folder: StoragePath) -> list[Fault]:
    """Return every fault of a folder of shards.

    Raises:
        ShardError: There is no manifest to verify against.
    """
    shards, faults = verify_folder(folder)
    num_samples = sum(shard.num_samples for shard in shards)
    with (
        Progress("verifying", num_samples, "samples") as progress,
        ThreadPoolExecutor(_NUM_THREADS) as pool,
    ):
        for shard, found in zip(shards, pool.map(lambda entry: verify_shard(folder, entry), shards), strict=True):
            faults += found
            progress.advance(shard.num_samples, size_bytes=shard.size_bytes)
    return faults


if __name__ == "__main__":
    sys.exit(run_job(main))
