"""The whole pipeline on real photos, offline, in minutes: every step is a command that you can type yourself."""

from __future__ import annotations

import json
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
NUMBERS = Path("demo/evaluation.json")
_BIN = Path(sys.executable).parent

COMMAND = CommandLine(
    "python jobs/demo.py",
    "Run the whole pipeline on real photos, offline, in about five minutes on two cores: shards, features, training,\n"
    "evaluation, a registered model and a before/after picture, all in demo/.",
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
    Step(
        "Train: first on pixels, then with the semantic-aware discriminator",
        ("python", "jobs/train_sed.py"),
    ),
    Step(
        "Evaluate on the two held-out photos", ("python", "jobs/evaluate.py", "--picture", str(PICTURE), "--overwrite")
    ),
    Step("Register the model", ("python", "jobs/promote.py")),
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
    mean = json.loads(NUMBERS.read_text(encoding="utf-8"))["sets"][VALIDATION.name]["mean"]
    return (
        f"PSNR-Y on the held-out photos: {mean['psnr_y']:.2f} dB, bicubic {mean['bicubic_psnr_y']:.2f} dB\n"
        "The semantic extractor and the perceptual network had seeded random weights: this shows the steps, not the\n"
        "paper's quality. With the real ones: --semantics.weights openai --losses.perceptual-weights torchvision\n"
        f"Picture (bicubic upscaling | ours | HR): {PICTURE}\n"
        "Run, curves, pictures and the registered model: make ui"
    )


if __name__ == "__main__":
    sys.exit(run_job(main))
