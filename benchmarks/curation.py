"""What do the rules of curation remove, rightly and wrongly, and what do scores and hashes cost?

Photos as they are, and the same photos degraded, are scored as the survey does; the tables say which share of each a
rule removes. A good photo that is removed is a wrong reject, a degraded one that stays a missed one. The bounds are
those that docs/data.md suggests. For near-duplicates, changed copies are compared with their photo, and all pairs of
photos with each other.

`--cost` measures sharding (survey, plan and writing on a local Ray with two workers) without and with scores and
hashes, which then remove nothing, in turn. `--search N` measures how long the driver compares N invented hashes.

Run:
    python benchmarks/curation.py PHOTOS [PHOTOS ...]
    python benchmarks/curation.py PHOTOS --cost --repeats 5
    python benchmarks/curation.py --search 85000
"""

from __future__ import annotations

import argparse
import io
import itertools
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from shard_writing import NUM_PROCESSES, Task, alternate, job_once, settings

from jobs.ray_tasks import ray_session
from shards.format.curation import CurationRules, ScoreRules, Scores
from shards.write.curation import curate
from shards.write.execution import SERIAL
from shards.write.perceptual_hash import perceptual_hash
from shards.write.plan import settings_of
from shards.write.scores import score_photo
from shards.write.sources import discover
from shards.write.subimages import grid
from shards.write.survey import Photo

Change = Callable[[Image.Image], Image.Image]

PHOTO_RULES = {"min_sharpness": 0.5, "max_blockiness": 1.2, "max_flat_share": 0.7, "min_complexity": 1.5}
SUB_IMAGE_RULES = {"min_sharpness": 0.45, "max_blockiness": 1.5, "max_flat_share": 0.8, "min_complexity": 1.0}
NEAR_BITS = (8, 24, 40, 48, 64)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Encode and decode."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    """Resize by bicubic interpolation."""
    size_px = (round(image.width * factor), round(image.height * factor))
    return image.resize(size_px, Image.Resampling.BICUBIC)


def enlarged(image: Image.Image, factor: int) -> Image.Image:
    """Shrink, then enlarge to the same size."""
    return resized(image, 1 / factor).resize(image.size, Image.Resampling.BICUBIC)


def sky(image: Image.Image, sigma_255: float) -> Image.Image:
    """A weak gradient with noise, of the photo's size."""
    shape = (image.height, image.width, 3)
    gradient = np.linspace(150, 190, image.height)[:, None, None]
    noise = np.random.default_rng(image.width).normal(0, sigma_255, shape)
    return Image.fromarray((gradient + noise).round().astype(np.uint8))


def cropped(image: Image.Image, margin: float) -> Image.Image:
    """Cut a share of the width and of the height off every side."""
    x_px, y_px = round(image.width * margin), round(image.height * margin)
    return image.crop((x_px, y_px, image.width - x_px, image.height - y_px))


DEGRADATIONS: dict[str, Change] = {
    "as it is": lambda image: image,
    "JPEG 20": lambda image: jpeg(image, 20),
    "JPEG 20, cropped by 3 px": lambda image: jpeg(image, 20).crop((3, 3, *image.size)),
    "JPEG 50": lambda image: jpeg(image, 50),
    "JPEG 75": lambda image: jpeg(image, 75),
    "blur 1 px": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "blur 2 px": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "enlarged x2": lambda image: enlarged(image, 2),
    "enlarged x4": lambda image: enlarged(image, 4),
    "sky, noise 1": lambda image: sky(image, 1),
}
COPIES: dict[str, Change] = {
    "JPEG 20": lambda image: jpeg(image, 20),
    "half the size": lambda image: resized(image, 0.5),
    "a quarter, JPEG 50": lambda image: jpeg(resized(image, 0.25), 50),
    "x1.5": lambda image: resized(image, 1.5),
    "blur 2 px": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "20% brighter": lambda image: image.point([min(255, value * 6 // 5) for value in range(256)] * 3),
    "1% off each side": lambda image: cropped(image, 0.01),
    "2% off each side": lambda image: cropped(image, 0.02),
    "5% off each side": lambda image: cropped(image, 0.05),
}


def load(folders: Sequence[Path]) -> list[Image.Image]:
    """Open the photos, as RGB."""
    return [Image.open(file.path).convert("RGB") for file in discover(folders)]


def scored(images: Sequence[Image.Image], side_px: int) -> tuple[Scores, Scores]:
    """Scores of photos, and of their sub-images at half their side as stride; smaller photos do not count."""
    tables = []
    for image in images:
        if min(image.size) >= side_px:
            positions = grid(image.height, image.width, scale=4, sub_image_px=side_px, stride_px=side_px // 2)
            tables.append(score_photo(image.convert("L"), positions, side_px))
    return np.concatenate([table[:1] for table in tables]), np.concatenate([table[1:] for table in tables])


def print_rejects(images: Sequence[Image.Image], side_px: int) -> None:
    """Print which share of photos and sub-images each rule removes."""
    found = {name: scored([change(image) for image in images], side_px) for name, change in DEGRADATIONS.items()}
    for level, (unit, bounds) in enumerate((("photos", PHOTO_RULES), (f"sub-images of {side_px} px", SUB_IMAGE_RULES))):
        print(f"\n| {len(found['as it is'][level])} {unit}: % removed | {' | '.join(found)} |")
        print("| --- " * (1 + len(found)) + "|")
        rules = {f"{name} = {bound}": ScoreRules(**{name: bound}) for name, bound in bounds.items()}
        for name, rule in {**rules, "all four": ScoreRules(**bounds)}.items():
            shares = (100 * np.mean(rule.broken(scores[level]) >= 0) for scores in found.values())
            print(f"| {name} | {' | '.join(f'{share:.1f}' for share in shares)} |")


def print_near_duplicates(images: Sequence[Image.Image]) -> None:
    """Print which share of copies, and how many pairs of photos, differ in at most so many bits."""
    hashes = [perceptual_hash(image.convert("L")) for image in images]
    pairs = np.array([_distance(one, other) for one, other in itertools.combinations(hashes, 2)])
    print(f"\n| near_duplicate_bits | {' | '.join(COPIES)} | of {len(pairs)} pairs of photos |")
    print("| --- " * (2 + len(COPIES)) + "|")
    distances = {
        name: np.array(
            [
                _distance(own, perceptual_hash(change(image).convert("L")))
                for image, own in zip(images, hashes, strict=True)
            ]
        )
        for name, change in COPIES.items()
    }
    for bits in NEAR_BITS:
        shares = " | ".join(f"{100 * np.mean(found <= bits):.0f}%" for found in distances.values())
        print(f"| {bits} | {shares} | {np.sum(pairs <= bits)} |")
    print(f"\npairs of photos: at least {pairs.min()} bits, mean {pairs.mean():.1f}, deviation {pairs.std():.1f}")


def _distance(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def print_cost(folders: Sequence[Path], degradation: Task, repeats: int) -> None:
    """Time sharding without and with scores and hashes, in turn."""
    plain = settings(folders, Path("unused"), degradation)
    curated = replace(plain, curation=CurationRules(record_scores=True))
    files = discover(folders)
    with ray_session(num_cpus=NUM_PROCESSES) as session:
        timings = alternate(
            {
                "no rules": lambda folder: job_once(plain, files, session, folder),
                "scores and hashes": lambda folder: job_once(curated, files, session, folder),
            },
            repeats,
        )
    print(
        f"\n{degradation}: {len(files)} photos; {platform.machine()}, {NUM_PROCESSES} processes; medians of {repeats}"
    )
    print("\n| way | wall s | CPU s |\n| --- | --- | --- |")
    for name, found in timings.items():
        wall_s, cpu_s = (statistics.median(getattr(timing, part) for timing in found) for part in ("wall_s", "cpu_s"))
        print(f"| {name} | {wall_s:.2f} | {cpu_s:.2f} |")
    for part in ("wall_s", "cpu_s"):
        ratios = [
            getattr(with_scores, part) / getattr(without, part)
            for without, with_scores in zip(*timings.values(), strict=True)
        ]
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{part}: {statistics.median(ratios):.3f} of no rules (median of pairs; {spread})")


def print_search(num_photos: int) -> None:
    """Time the driver's search for near-duplicates among invented hashes."""
    rng = np.random.default_rng(0)
    photos = [
        Photo(f"a/{number}", f"{number}", 1, 1000, 1000, f"{number}", perceptual_hash=rng.bytes(32).hex())
        for number in range(num_photos)
    ]
    config = replace(settings((Path("a"),), Path("b"), "classical"), curation=CurationRules(near_duplicate_bits=40))
    start_s = time.perf_counter()
    kept, _ = curate(photos, settings_of(config), {}, {}, SERIAL)
    print(f"{num_photos} hashes, {len(kept)} kept: {time.perf_counter() - start_s:.1f} s")


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0] if __doc__ else "")
    parser.add_argument("photos", nargs="*", type=Path, metavar="PHOTOS", help="folders of photos")
    parser.add_argument("--sub-image-px", type=int, nargs="+", default=[160, 480])
    parser.add_argument("--cost", action="store_true", help="time sharding with and without scores")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--degradation", nargs="+", default=["realworld", "classical"])
    parser.add_argument("--search", type=int, metavar="N", help="time the search among N invented hashes")
    arguments = parser.parse_args()
    if arguments.search:
        print_search(arguments.search)
    elif not arguments.photos:
        parser.error("give folders of photos, or --search N")
    elif arguments.cost:
        for degradation in arguments.degradation:
            print_cost(arguments.photos, degradation, arguments.repeats)
    else:
        images = load(arguments.photos)
        for side_px in arguments.sub_image_px:
            print_rejects(images, side_px)
        print_near_duplicates(images)


if __name__ == "__main__":
    main()
