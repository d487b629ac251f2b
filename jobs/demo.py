"""The whole pipeline on real photos, offline, in minutes: every step is a command that you can type yourself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from jobs.command_line import CommandLine
from jobs.sample_photos import TRAIN, VALIDATION, prepare_training_photos, prepare_validation_photos
from jobs.terminal import JobStoppedError, run_job
from pipeline.progress import say

PICTURE = Path("demo/before_after.png")
REPORT = Path("demo/report.html")
MODELS = ("demo/psnr", "demo/sed")
METRICS = ("psnr_y", "features-efficientnet", "spectrum", "haarpsi")
_BIN = Path(sys.executable).parent

COMMAND = CommandLine(
    "python jobs/demo.py",
    "Run the whole pipeline on real photos, offline, in about ten minutes on two cores: shards, features, training on\n"
    "pixels, then with the semantic-aware discriminator, a registered model and a report, all in demo/.",
    ("# rerun it to resume; `make clean` removes what it made",),
)


@dataclass(frozen=True)
class DemoConfig:
    """The demo has no options of its own; each of its steps does."""


@dataclass(frozen=True)
class Step:
    """One command of the demo."""

    title: str
    command: tuple[str, ...]


STEPS = (
    Step("Cut the photos into shards, with Ray", ("python", "jobs/shard.py")),
    Step("Cache the semantic features of every seeded crop", ("python", "jobs/cache_features.py")),
    Step("Train the start on pixels, as the paper does", ("python", "jobs/train_sed.py", "demo_psnr")),
    Step("Train with the semantic-aware discriminator", ("python", "jobs/train_sed.py")),
    Step(
        "Measure both on the photos held out",
        ("python", "jobs/evaluate.py", *MODELS, "--metrics", *METRICS, "--picture", str(PICTURE), "--overwrite"),
    ),
    # By the spectrum: five photos are too few for the others to prove a difference of one percent.
    Step("Register the start", ("python", "jobs/promote.py", MODELS[0], "--metric", "spectrum")),
    Step("Register the SeD model, which has to beat it", ("python", "jobs/promote.py", "--metric", "spectrum")),
    Step(
        "Write the report",
        ("python", "jobs/report.py", *MODELS, "--metrics", *METRICS, "--output", str(REPORT), "--overwrite"),
    ),
)


def main(argv: list[str]) -> int:
    """Run every step; what an earlier call finished is reused."""
    COMMAND.parse(DemoConfig, argv)
    start = time.monotonic()
    prepare_training_photos([TRAIN])
    prepare_validation_photos([VALIDATION])
    say(f"photos: {len(list(TRAIN.iterdir()))} to train on, {len(list((VALIDATION / 'HR').iterdir()))} held out")
    for number, step in enumerate(STEPS, 1):
        say(f"\n[{number}/{len(STEPS)}] {step.title}\n$ {' '.join(step.command)}")
        _run(step)
    say(f"\nDone in {(time.monotonic() - start) / 60:.1f} minutes.\n{_result()}")
    return 0


def _run(step: Step) -> None:
    program, *arguments = step.command
    environment = os.environ | {"PATH": f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    # The launcher would otherwise give each process one thread.
    environment.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    code = subprocess.run([str(_BIN / program), *arguments], env=environment, check=False).returncode
    if code:
        raise JobStoppedError(f"the demo stopped: `{' '.join(step.command)}` ended with exit code {code}", code)


def _result() -> str:
    return (
        "Semantics and perceptual loss are EfficientNet-Lite0's, trained on ImageNet, not the paper's CLIP and VGG19:\n"
        "python jobs/train_sed.py demo_clip downloads and uses those.\n"
        f"Report with sliders, curves and attention, to open in a browser: {REPORT}\n"
        f"Picture (bicubic upscaling | pixels alone | ours | HR): {PICTURE}\n"
        "Run, curves, pictures and the registered model: make ui"
    )


if __name__ == "__main__":
    sys.exit(run_job(main))
