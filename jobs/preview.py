"""Look at a degradation: a grid of HR and a few variants, each with the parameters it was made with.

The seeds are those of the shards, so a variant here has the seed that training uses for it. The canvas is the middle of
the sub-image, uncut and unturned, and a low-quality image is shown enlarged without smoothing.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw, ImageFont

from jobs.terminal import EXIT_FAULTS, JobStoppedError, run_job, say
from pipeline.checkpoint import CheckpointStore
from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.presets import load_preset
from pipeline.data.features import image_manifest
from pipeline.degrade import degrade, stack_parameters
from pipeline.tracking import NullTracker, open_tracker
from shards.degradation.parameters import SampleParameters, draw_parameters
from shards.degradation.recipe import Recipe, load_recipe
from shards.errors import InputError
from shards.format.files import check_writable, write_atomically
from shards.format.png import Pixels, decode_png
from shards.read.reader import Sample, ShardSet

_PANEL_PX = 256
_GAP_PX = 8
_FONT_PX = 12
_LINE_PX = 15
_MAX_PANELS = 64


@dataclass(frozen=True)
class PreviewConfig:
    """What to show. With no argument: the demo's shards under the law of Real-ESRGAN."""

    shards: Annotated[Path, tyro.conf.Positional] = Path("demo/shards")
    """Folder of image shards."""
    recipe: str = "realesrgan-1"
    """A recipe that this project ships, or a path that ends in .toml."""
    output: Path = Path("demo/preview.png")
    """The picture."""
    samples: int = 4
    """Rows: sub-images, evenly spread over the shards."""
    variants: int = 4
    """Degradations of each."""
    canvas_px: int | None = None
    """Side of the HR square; the whole sub-image when not given."""
    run: Path | None = None
    """Also log the picture to this run folder's run in MLflow."""


@dataclass(frozen=True)
class Row:
    """One sub-image: its name, (canvas, canvas, 3) uint8 HR, and each variant's parameters and LQ."""

    name: str
    hr: Pixels
    variants: tuple[tuple[SampleParameters, Pixels], ...]


def main(argv: list[str]) -> int:
    """Run the job; see `python jobs/preview.py --help`."""
    config = tyro.cli(PreviewConfig, args=argv, prog="python jobs/preview.py", description=__doc__)
    _check(config)
    recipe = load_recipe(config.recipe)
    images = ShardSet(config.shards, image_manifest(config.shards))
    run = None if config.run is None else _find_run(config.run)
    check_writable(config.output.parent)
    indices = [k * len(images) // config.samples for k in range(min(config.samples, len(images)))]
    picture = draw_grid([degrade_sample(images, index, recipe, config) for index in indices])
    config.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(config.output, _png(picture))
    say(f"picture: {config.output}")
    if run is not None:
        run.log(f"degradation/{recipe.name}", picture)
        say(f"and in MLflow, run {run.run_id}")
    return 0


def _check(config: PreviewConfig) -> None:
    for field in ("samples", "variants"):
        value = getattr(config, field)
        if not 1 <= value <= _MAX_PANELS:
            raise InputError(f"--{field} must be from 1 to {_MAX_PANELS}; got {value}")
    if config.output.suffix.lower() != ".png":
        raise InputError(f"--output must end in .png; got {config.output}")


def degrade_sample(images: ShardSet, index: int, recipe: Recipe, config: PreviewConfig) -> Row:
    """Make every variant of one sub-image.

    Raises:
        InputError: The sub-image is smaller than the canvas; names the sample.
    """
    sample = images.sample(index)
    scale = images.manifest.images.scale
    hr = cut_canvas(decode_png(sample.members["png"], sample.key), sample.key, config.canvas_px, scale)
    parameters = [
        draw_parameters(recipe, seed, scale=scale, canvas_px=len(hr), crop_px=len(hr))
        for seed in _seeds(sample, config.variants, images.manifest.images.seed)
    ]
    batch = torch.from_numpy(hr).permute(2, 0, 1)[None].float().div(255).repeat(len(parameters), 1, 1, 1)
    lq = (degrade(batch, stack_parameters(parameters)).lq * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return Row(sample.key, hr, tuple(zip(parameters, lq.numpy(), strict=True)))


def _seeds(sample: Sample, num_variants: int, dataset_seed: int) -> list[str]:
    record = sample.record
    return [record.seed(variant, dataset_seed) for variant in range(num_variants)]


def cut_canvas(image: Pixels, name: str, canvas_px: int | None, scale: int) -> Pixels:
    """Cut the middle square of an image.

    Args:
        image: (H, W, 3) uint8.
        name: Of the sample, for errors.
        canvas_px: Side; the largest multiple of the scale when None.
        scale: Divides the side.

    Raises:
        InputError: The side is no multiple of the scale, or larger than the image.
    """
    height_px, width_px = image.shape[:2]
    largest_px = min(height_px, width_px) // scale * scale
    side_px = largest_px if canvas_px is None else canvas_px
    if side_px < 1 or side_px % scale or side_px > largest_px:
        raise InputError(
            f"--canvas-px must be a multiple of {scale}, at most {largest_px}; got {side_px}; "
            f"sample {name} has {height_px}x{width_px} px"
        )
    top_px, left_px = (height_px - side_px) // 2, (width_px - side_px) // 2
    return image[top_px : top_px + side_px, left_px : left_px + side_px].copy()


def draw_grid(rows: list[Row]) -> Pixels:
    """Draw one row a sub-image, as (H, W, 3) uint8: HR, then its variants, each with its parameters under it."""
    lines = [_captions(row) for row in rows]
    num_lines = max(len(caption) for captions in lines for caption in captions)
    drawn = [
        _join([_panel(image, caption, num_lines) for image, caption in zip(_images(row), captions, strict=True)], 1)
        for row, captions in zip(rows, lines, strict=True)
    ]
    return _join(drawn, 0)


def _captions(row: Row) -> list[list[str]]:
    captions = [[row.name, f"HR, {len(row.hr)} px"]]
    for number, (parameters, lq) in enumerate(row.variants):
        steps = [step.caption() for step in parameters.steps]
        captions.append([f"variant {number}, LQ, {len(lq)} px", *filter(None, steps)])
    return captions


def _images(row: Row) -> list[Pixels]:
    return [row.hr, *(lq.repeat(len(row.hr) // len(lq), 0).repeat(len(row.hr) // len(lq), 1) for _, lq in row.variants)]


def _panel(image: Pixels, lines: list[str], num_lines: int) -> Pixels:
    """Enlarge a small image by a whole factor and write its lines under it."""
    factor = -(-_PANEL_PX // len(image))
    image = image.repeat(factor, 0).repeat(factor, 1)
    caption = Image.new("RGB", (image.shape[1], _LINE_PX * num_lines + 4), "white")
    pen, font = ImageDraw.Draw(caption), ImageFont.load_default(_FONT_PX)
    for number, line in enumerate(lines):
        pen.text((2, 2 + _LINE_PX * number), _fit(line, font, image.shape[1] - 4), fill="black", font=font)
    return np.concatenate([image, np.asarray(caption)])


def _fit(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    if font.getlength(line) <= width_px:
        return line
    while line and font.getlength(line + "...") > width_px:
        line = line[:-1]
    return line + "..."


def _join(pictures: list[Pixels], axis: int) -> Pixels:
    """Put pictures beside (1) or below (0) each other, with white gaps; smaller ones are padded in white."""
    across = 1 - axis
    size_px = max(picture.shape[across] for picture in pictures)
    pieces = []
    for number, picture in enumerate(pictures):
        widths = [(0, 0)] * 3
        widths[across] = (0, size_px - picture.shape[across])
        widths[axis] = (_GAP_PX if number else 0, 0)
        pieces.append(np.pad(picture, widths, constant_values=255))
    return np.concatenate(pieces, axis=axis)


def _png(picture: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class TrackedRun:
    """A training run in MLflow: its folder's name, its experiment, and where and how it stands."""

    name: str
    experiment: str
    run_id: str
    images_seen: int
    is_finished: bool

    def log(self, key: str, picture: Pixels) -> None:
        """Add a picture, and leave the run's status as it was.

        Raises:
            JobStoppedError: MLflow cannot be reached, or does not know the run.
        """
        tracker = open_tracker(self.experiment, self.name, self.run_id, {}, {})
        if isinstance(tracker, NullTracker):
            raise JobStoppedError("the picture is written, but not in MLflow; check MLFLOW_TRACKING_URI", EXIT_FAULTS)
        tracker.picture(key, picture, self.images_seen)
        tracker.close("FINISHED" if self.is_finished else "KILLED")
        if tracker.run_id != self.run_id:
            raise JobStoppedError(
                f"MLflow does not know run {self.run_id} of {self.name}; the picture is in the new run "
                f"{tracker.run_id}; check MLFLOW_TRACKING_URI",
                EXIT_FAULTS,
            )


def _find_run(path: Path) -> TrackedRun:
    folder = RunFolder(path)
    checkpoint = CheckpointStore(folder.checkpoints).newest()
    run_id = checkpoint.facts.get("mlflow_run_id") if checkpoint else None
    if checkpoint is None or run_id is None:
        raise InputError(
            f"--run {path} holds no checkpoint of a run in MLflow; give the --run-dir of jobs/train_sed.py"
        )
    train = load_preset(str(folder.config)).train
    is_finished = checkpoint.images_seen >= train.num_steps * train.data.batch_size
    return TrackedRun(path.resolve().name, train.report.experiment, run_id, checkpoint.images_seen, is_finished)


if __name__ == "__main__":
    sys.exit(run_job(main))
