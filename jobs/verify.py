"""Check every byte of a folder of shards, and that every image decodes to its recorded pixels."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jobs.command_line import CommandLine
from jobs.terminal import EXIT_FAULTS, run_job
from pipeline.progress import Progress
from shards.errors import InputError
from shards.format.storage import StoragePath

if TYPE_CHECKING:
    from shards.read.verification import Fault

COMMAND = CommandLine(
    "python jobs/verify.py",
    "Re-hash and decode everything in a folder of shards, and list all faults.\n"
    "Exit code 0: every byte is as it was written; 1: there are faults; 2: no shards there.",
    (
        "data/shards/df2k_x4",
        "data/shards/df2k_x4 --repair data/DF2K/HR  # rewrites the corrupt shards from the photos",
    ),
)


@dataclass(frozen=True)
class VerifyConfig:
    """What to verify. The default is the demo's shards."""

    folder: Annotated[StoragePath, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")] = Path("demo/shards")
    """Folder or URL that jobs/shard.py wrote."""
    repair: tuple[Path, ...] = ()
    """Folders of photos that the shards were made from, in the same order; rewrites corrupt shards."""
    repair_lq: tuple[Path, ...] = ()
    """Folders of their LQ images, for paired shards; with --repair."""

    def __post_init__(self) -> None:
        """Check that LQ images come with their photos."""
        if self.repair_lq and not self.repair:
            raise InputError("--repair-lq needs the photos too: --repair SOURCE --repair-lq LQ_SOURCE")


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/verify.py --help`."""
    config = COMMAND.parse(VerifyConfig, argv)

    faults = verify(config.folder)
    for fault in faults:
        print(fault)
    if faults and config.repair:
        from jobs.ray_tasks import ray_session
        from shards.write.repair import find_photos, repair

        plans, photos = find_photos(config.folder, config.repair, config.repair_lq)
        with ray_session() as session:
            repair(config.folder, plans, photos, {fault.file for fault in faults}, session.executor)
        faults = verify(config.folder)
        for fault in faults:
            print(f"not repaired: {fault}")
    if faults:
        remedy = "repair it with --repair SOURCE, paired shards with --repair-lq LQ_SOURCE too"
        print(f"{len(faults)} fault(s) in {config.folder}; {remedy}")
        return EXIT_FAULTS
    print(f"{config.folder} is intact")
    return 0


def verify(folder: StoragePath) -> list[Fault]:
    """Return every fault of a folder of shards.

    Raises:
        ShardError: There is no manifest to verify against.
    """
    from shards.read.verification import verify_folder, verify_shards

    contents = verify_folder(folder)
    faults = contents.faults
    num_samples = sum(shard.num_samples for shard in contents.shards)
    with Progress("verifying", num_samples, "samples") as progress:
        for shard, found in verify_shards(folder, contents):
            faults += found
            progress.advance(shard.num_samples, size_bytes=shard.size_bytes)
    return faults


if __name__ == "__main__":
    sys.exit(run_job(main))
