"""Results of an experiment that nobody trained: values, run folders and pictures with known differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from harness import photo
from PIL import Image, ImageFilter

from pipeline.experiments.results import ArmResults, ComparisonResults, Verdict
from pipeline.metrics import METRICS, Metric
from pipeline.metrics.bootstrap import Interval, mean_interval
from pipeline.train.report import MetricsFile

MARGIN = 0.004
LEVELS = {"psnr_y": 26.0, "ssim_y": 0.75, "gmsd": 0.12, "haarpsi": 0.6}
SCALES = {"psnr_y": 2.0, "ssim_y": 0.08, "gmsd": 0.03, "haarpsi": 0.08}
"""How far images are apart. Arms differ by a twentieth of it, seeds by a fiftieth."""


def synthetic_comparison(
    folder: Path,
    titles: Sequence[str] = ("P", "P+SeD", "P, shuffled semantics"),
    num_seeds: int = 2,
    photos: Mapping[str, np.ndarray] | None = None,
    metrics: Sequence[str] = ("gmsd", "psnr_y"),
    noise: float = 0.01,
) -> ComparisonResults:
    """Results of some arms, the first of which is the baseline and the second the best by the first metric."""
    if photos is None:
        photos = {f"set/photo{number}": photo(number, 72, 88) for number in range(3)}
    chosen = [METRICS[name] for name in metrics]
    names = [f"arm{number}" for number in range(len(titles))]
    values = {name: arm_values(chosen, at, (num_seeds, len(photos)), noise) for at, name in enumerate(names)}
    for at, name in enumerate(names):
        write_pictures(folder / "pictures" / name, photos, lambda image, at=at: degraded(image, 0.4 + 0.25 * at, at))
        for seed in range(num_seeds):
            write_reports(folder / "runs" / f"{name}-{seed}", chosen, values[name], seed, has_adversary=at != 2)
    write_pictures(folder / "pictures" / "HR", photos, lambda image: image)
    write_pictures(folder / "pictures" / "bicubic", photos, lambda image: degraded(image, 2, None))
    return ComparisonResults(
        title="Does SeD help a small generator?",
        question="Is P+SeD better than P under one budget? And better than P with shuffled semantics?",
        baseline=names[0],
        primary=chosen[0],
        metrics=chosen,
        margin=MARGIN,
        seeds=range(num_seeds),
        images=list(photos),
        bicubic={metric.name: values[names[0]][metric.name][0] - 0.2 * sign(metric) for metric in chosen},
        arms=[
            ArmResults(
                name=name,
                title=title,
                num_parameters=2_765_568 * (at + 1),
                flops=1.3e16 * (at + 1),
                runs={seed: folder / "runs" / f"{name}-{seed}" for seed in range(num_seeds)},
                values=values[name],
                interpolated=route(chosen, values[name]),
            )
            for at, (name, title) in enumerate(zip(names, titles, strict=True))
        ],
        intervals={name: {key: over_images(rows) for key, rows in values[name].items()} for name in names},
        differences={name: verdicts(chosen, values[name], values[names[0]]) for name in names[1:]},
        pictures=folder / "pictures",
        origin={"Command": "python jobs/compare.py <b>experiment.toml", "Date": "2026-11-26"},
    )


def arm_values(metrics: Sequence[Metric], arm: int, size: tuple[int, int], noise: float) -> dict[str, np.ndarray]:
    """Values of an arm, of a number of seeds and images, whose differences have some noise."""
    found = {}
    for metric in metrics:
        level, scale = LEVELS[metric.name], SCALES[metric.name]
        images = level + scale * np.random.RandomState(7).standard_normal(size[1])
        seeds = scale / 50 * np.random.RandomState(arm).standard_normal((size[0], 1))
        errors = noise * scale * np.random.RandomState(100 + arm).standard_normal(size)
        better = scale / 20 * (0, 4, 0.1, -1, 1, 0, -20)[arm % 7]
        found[metric.name] = images + seeds + errors + better * sign(metric)
    return found


def sign(metric: Metric) -> float:
    return 1.0 if metric.is_higher_better else -1.0


def route(metrics: Sequence[Metric], values: Mapping[str, np.ndarray]) -> dict[float, dict[str, np.ndarray]]:
    """Perception against distortion, from a start with more PSNR."""
    away = {
        metric.name: SCALES[metric.name] / 4 * (1 if metric.kind == "distortion" else -sign(metric))
        for metric in metrics
    }
    return {
        share: {name: values[name][0] + (1 - share) ** 1.5 * shift for name, shift in away.items()}
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    }


def over_images(rows: np.ndarray) -> Interval | None:
    return mean_interval(list(rows.mean(axis=0)), resamples=500)


def verdicts(
    metrics: Sequence[Metric], ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]
) -> dict[str, Verdict]:
    found = {}
    for metric in metrics:
        interval = over_images(ours[metric.name] - theirs[metric.name])
        assert interval is not None
        low, high = sorted((sign(metric) * interval.low, sign(metric) * interval.high))
        is_small = metric is metrics[0] and max(-low, high) < MARGIN
        text = "equivalent" if is_small else "better" if low > 0 else "worse" if high < 0 else "not proven"
        found[metric.name] = Verdict(interval, text)
    return found


def write_reports(
    run: Path, metrics: Sequence[Metric], values: Mapping[str, np.ndarray], seed: int, *, has_adversary: bool
) -> None:
    run.mkdir(parents=True)
    file, random = MetricsFile(run / "metrics.jsonl"), np.random.RandomState(sum(run.name.encode()))
    for images in range(200, 4001, 200):
        progress = 1 - np.exp(-images / 1500)
        report = {"generator/pixel": 0.05 - 0.02 * progress}
        if has_adversary:
            accuracies = {
                f"discriminator/accuracy_{side}": 0.5 + 0.3 * progress + random.normal(0, 0.02)
                for side in ("real", "fake")
            }
            report |= accuracies | {"gradient_share/adversarial": 0.2 * progress + random.uniform(0, 0.02)}
        file.write(images, report)
        if images % 800 == 0:
            behind = {metric.name: (1 - progress) * SCALES[metric.name] * sign(metric) for metric in metrics}
            validation = {f"set/{name}": float(values[name][seed].mean() - lag) for name, lag in behind.items()}
            file.write(images, validation | {f"set/bicubic_{name}": LEVELS[name] for name in behind})


def write_pictures(folder: Path, photos: Mapping[str, np.ndarray], change) -> None:
    for name, image in photos.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(change(image)).save(path)


def degraded(image: np.ndarray, radius_px: float, grain: int | None) -> np.ndarray:
    """The picture with blur, and with grain of a seed."""
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius_px))).astype(float)
    if grain is not None:
        blurred += 6 * np.random.RandomState(grain).standard_normal(blurred.shape)
    return blurred.clip(0, 255).astype(np.uint8)
