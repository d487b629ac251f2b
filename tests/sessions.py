"""Real sessions in this process: asked to stop where a test says, and what they leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from harness import changed
from safetensors.torch import load_file

from pipeline.config.schema import Preset
from pipeline.run.session import Outcome, Session
from pipeline.runtime.backend import Backend


class Screen:
    """Remembers where the run was."""

    def __init__(self, images_seen: int, total_images: int) -> None:
        self.positions = [images_seen]
        self.lines: list[str] = []

    def advance(self, images_seen: int, stage: str) -> None:
        self.positions.append(images_seen)

    def report(self, images_seen: int, values: dict[str, float]) -> None:
        pass

    def validation(self, images_seen: int, lines: list[str]) -> None:
        self.lines += lines


def run_session(
    preset: Preset, run_dir: Path, stop_at: int | None = None, *, must_stop: Callable[[int], bool] | None = None
) -> tuple[Outcome, list[int]]:
    """Train until a position is reached, or `must_stop` of the position says so, or to the end."""
    preset = changed(preset, run_dir=run_dir)
    screens: list[Screen] = []

    def progress_of(images_seen: int, total_images: int) -> Screen:
        screens.append(Screen(images_seen, total_images))
        return screens[0]

    def asked() -> bool:
        position = screens[0].positions[-1] if screens else 0
        return must_stop(position) if must_stop is not None else stop_at is not None and position >= stop_at

    session = Session(preset, Backend(preset.train.runtime, batch_size=preset.train.data.batch_size))
    try:
        outcome = session.run(progress_of, asked)
    finally:
        session.close()
    return outcome, screens[0].positions if screens else []


def lines_of(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def saved_positions(run_dir: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("images-")) for path in (run_dir / "checkpoints").iterdir())


def assert_same_end(run_dir: Path, straight: Path) -> None:
    """The same metrics file and the same exported bits."""
    assert lines_of(run_dir) == lines_of(straight)
    assert_same_exports(run_dir, straight)


def assert_same_exports(run_dir: Path, straight: Path) -> None:
    """The same bits in both networks."""
    for name in ("generator", "discriminator"):
        ours, theirs = (load_file(folder / "export" / f"{name}.safetensors") for folder in (run_dir, straight))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
