"""Studies with people for tests: pictures of arms that differ, and votes of simulated people of known preferences."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import photo
from PIL import Image

from pipeline.experiments.study_file import VOTES_FORMAT, Study

Pictures = tuple[dict[str, dict[str, Path]], dict[str, Path]]


def write_pictures(folder: Path, arms: Sequence[str], num_images: int, size_px: tuple[int, int] = (40, 48)) -> Pictures:
    """Write HR images and every arm's result of them, all different; returns the paths by arm and image, and of HR."""
    folder.mkdir(parents=True)
    names = [f"photo{number}" for number in range(num_images)]
    results = {arm: {name: folder / f"arm{at}-{name}.png" for name in names} for at, arm in enumerate(arms)}
    originals = {name: folder / f"hr-{name}.png" for name in names}
    for number, name in enumerate(names):
        original = photo(number, *size_px)
        Image.fromarray(original).save(originals[name])
        for at, arm in enumerate(arms):
            noise = np.random.RandomState(100 * number + at).normal(0, 12, original.shape)
            Image.fromarray((original + noise).clip(0, 255).astype(np.uint8)).save(results[arm][name])
    return results, originals


def vote(
    study: Study,
    voter: int,
    strengths: Mapping[str, float],
    *,
    left_bias: float = 0.0,
    num_questions: int = 60,
    repeat_share: float = 0.2,
) -> dict[str, Any]:
    """Votes as the page exports them, of a person who prefers arms by their strengths, as Bradley and Terry say.

    Args:
        study: Its key.
        voter: Number of the person, who always chooses alike.
        strengths: Log-odds by arm's name.
        left_bias: Log-odds of the left side.
        num_questions: Without repeats.
        repeat_share: Of them.
    """
    random = np.random.default_rng(voter)
    pairs = [(image, *pair) for image in range(len(study.images)) for pair in itertools.combinations(study.arms, 2)]
    asked = [pairs[at] for at in random.permutation(len(pairs))[:num_questions]]
    placed = [(image, *random.permutation(arms).tolist(), False) for image, *arms in asked]
    repeats = [(image, right, left, True) for image, left, right, _ in placed[: round(repeat_share * len(placed))]]
    choices = []
    for image, left, right, is_repeat in [*placed, *repeats]:
        odds = strengths[study.arms[left]] - strengths[study.arms[right]] + left_bias
        chosen = "left" if random.random() < 1 / (1 + np.exp(-odds)) else "right"
        choices.append(
            {
                **{"image": image, "left": left, "right": right, "chosen": chosen},
                **{"repeat": is_repeat, "original_shown": False, "seconds": 1.5},
            }
        )
    started = "2026-11-26T12:00:00.000Z"
    head = {"format": VOTES_FORMAT, "study": study.study, "voter": f"{voter:016x}", "started": started}
    return {**head, "choices": choices}


def write_votes(path: Path, votes: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(votes))
    return path
