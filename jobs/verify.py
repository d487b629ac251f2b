"""Check every byte of a folder of shards, and that every image decodes to the pixels it should."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jobs.ray_tasks import ray_session
from jobs.terminal import EXIT_FAULTS, Progress, run_job
from shards.format.storage import StoragePath, parse_path
from shards.read.verification import Fault, verify_folder, verify_shards
from shards.write.repair import find_photos, repair


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
        help="folders of photos that the shards were made from, in the same order; rewrites broken shards",
    )
    arguments = parser.parse_args(argv)
    faults = verify(arguments.folder)
    for fault in faults:
        print(fault)
    if faults and arguments.repair:
        plans, photos = find_photos(arguments.folder, arguments.repair)
        with ray_session() as session:
            repair(arguments.folder, plans, photos, {fault.file for fault in faults}, session.executor)
        faults = verify(arguments.folder)
        for fault in faults:
            print(f"still there: {fault}")
    if faults:
        print(f"{len(faults)} fault(s) in {arguments.folder}; repair it with --repair SOURCE")
        return EXIT_FAULTS
    print(f"{arguments.folder} is whole")
    return 0


def verify(folder: StoragePath) -> list[Fault]:
    """Return every fault of a folder of shards.

    Raises:
        ShardError: There is no manifest to verify against.
    """
    shards, faults = verify_folder(folder)
    num_samples = sum(shard.num_samples for shard in shards)
    with Progress("verifying", num_samples, "samples") as progress:
        for shard, found in verify_shards(folder, shards):
            faults += found
            progress.advance(shard.num_samples, size_bytes=shard.size_bytes)
    return faults


if __name__ == "__main__":
    sys.exit(run_job(main))
