"""A run that is tracked, as training tracks it: everything is on the disk before a tracker hears of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.tracking import Report, RunDescription, known_run_id, open_trackers
from shards.format.files import fit_name

PARAMETERS = {"seed": 3, "data.shards": "s" * 900}
DESCRIPTION = RunDescription("sed tests", "first", PARAMETERS, {"image_manifest": "abc"})


class TrackedRun:
    """One call of a run.

    Args:
        folder: Of the run.
        description: What is known of it.
        trackers: Their names.
        record: What earlier calls reported.
    """

    def __init__(
        self, folder: Path, description: RunDescription, trackers: Sequence[str], record: Sequence[Report]
    ) -> None:
        self.folder = folder.absolute()  # a thread that outlives its test must not write into the next one's folder
        self.reports = list(record)
        self.trackers = open_trackers(trackers, description, self.folder / "tracking", lambda: list(self.reports))

    @property
    def run_id(self) -> str:
        """Its ID in MLflow, once that was reached."""
        return known_run_id(self.folder / "tracking" / "mlflow") or ""

    def metrics(self, values: Mapping[str, float], images_seen: int) -> None:
        self.reports.append(Report(images_seen, values))
        self.trackers.metrics(values, images_seen)

    def picture(self, name: str, image: np.ndarray, images_seen: int) -> None:
        path = self.folder / "pictures" / fit_name(f"picture {name.replace('/', '_')}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        Image.fromarray(image).save(path)
        self.trackers.picture(name, path, images_seen)

    def file(self, path: Path) -> None:
        self.trackers.file(path)

    def close(self, status: str) -> None:
        self.trackers.close(status)


def open_run(
    folder: Path = Path("run"),
    description: RunDescription = DESCRIPTION,
    trackers: Sequence[str] = ("mlflow",),
    record: Sequence[Report] = (),
) -> TrackedRun:
    """Open a run in a folder; the same folder again resumes it."""
    return TrackedRun(folder, description, trackers, record)
