"""The file of a report, checked before any work. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.data.evaluation import set_files
from pipeline.inference.model_names import model_files
from pipeline.runtime.launch import launched_world_size
from shards.errors import InputError
from shards.format.files import check_writable
from shards.format.outputs import check_output_files, head_of

GENERATOR = "sed-trainer report"
_MARK = f'<meta name="generator" content="{GENERATOR}">'
_HEAD_BYTES = 400


def check_report_file(output: Path, models: Sequence[str], sets: Sequence[Path], *, overwrite: bool) -> None:
    """Check that a report can be written.

    Args:
        output: The HTML file.
        models: As users name them.
        sets: Evaluation sets.
        overwrite: Replace an existing file that is no report; inputs are never replaced.

    Raises:
        InputError: It is no HTML file by its name, an input, another program's file, or in a folder that cannot be
            written; or this is one of several processes.
    """
    if launched_world_size() > 1:
        raise InputError(
            f"a report shows every photo, and each of {launched_world_size()} processes evaluates only its share of "
            "them; start the job without a launcher"
        )
    if output.suffix.lower() not in {".html", ".htm"}:
        raise InputError(f"--output {output} does not end in .html; a report is one HTML file")
    inputs = [*model_files(models), *set_files(sets)]
    check_output_files([output], inputs, is_own=is_report, overwrite=overwrite)
    check_writable(output.parent)


def is_report(path: Path) -> bool:
    """Return whether a file is a report that this job wrote."""
    return _MARK.encode() in head_of(path, _HEAD_BYTES)
