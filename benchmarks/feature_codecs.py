"""What does each codec of cached features cost and lose, on real photos and with real weights?

Every codec stores the same features: what the extractor computes of crops in all eight orientations. A row has bytes
and speed per crop, on the CPU of one thread, then what is lost: the least cosine between the features of a crop before
and after, the largest error as a share of the largest value, and how far the loss of a semantic-aware discriminator
and its gradients move, against features that were not stored. The discriminator has learned for some steps to tell
photos from their bicubic upscaling, so that the semantics reach its logits.

A gradient's change is the norm of the difference over the norm: for D's weights, and for the fake image, which is all
that a generator sees of the semantics. The yardstick is the change by computing the same step in bfloat16, as the
presets do. Codecs that learn from data learn from the first half of the photos, as the discriminator does; every
number is of the second half.

Run:
    python benchmarks/feature_codecs.py --photos DIR
    python benchmarks/feature_codecs.py --photos DIR --architecture open_clip:RN50 --weights random
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _origin import add_json_argument, publish
from _tables import Column, Row, label, row_of, seconds
from PIL import Image
from torch import Tensor, nn

from pipeline.losses import VanillaLoss
from pipeline.models.discriminators import PatchDiscriminator
from pipeline.models.semantics.extractor import SemanticExtractor, build_semantic_extractor
from shards.degradation.crops import NUM_DIHEDRALS, Crop
from shards.format.codecs import CODECS

SCALE = 4
COSINE, DECODE_MS = 0.9999, 2.0
"""The bound of the default beside the yardstick: least cosine, and processor time of reading a crop."""


COLUMNS = (
    label("features"),
    label("crops"),
    label("codec"),
    Column("KiB per crop", ".1f", "lower", is_compared=True, noise=0.2),
    Column("encode crops/s", ",.0f", "higher"),
    Column("decode crops/s", ",.0f", "higher"),
    seconds("decode ms"),
    Column("least cosine", ".6f", "higher", is_compared=True, noise=1e-4),
    Column("largest error", ".1e", "lower", is_compared=True),
    Column("change of D's loss", ".1e", "lower", is_compared=True, noise=0.5),
    Column("of D's gradient", ".1e", "lower", is_compared=True, noise=0.5),
    Column("of G's gradient", ".1e", "lower", is_compared=True, noise=0.5),
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a codec costs and loses; the yardstick has no bytes and takes no time."""

    name: str
    kib: float | None
    encode_ms: float | None
    decode_ms: float | None
    cosine: float | None
    error: float
    loss: float
    gradient: float
    image_gradient: float

    def is_within_bound(self, yardstick: Outcome) -> bool:
        """Return whether it may be the default."""
        moves_less = self.gradient < yardstick.gradient and self.image_gradient < yardstick.image_gradient
        is_quick = self.decode_ms is not None and self.decode_ms < DECODE_MS
        return moves_less and is_quick and self.cosine is not None and self.cosine >= COSINE

    def row(self, features: str, num_crops: int) -> Row:
        """Return the line of the table."""
        speeds = [1e3 / spent_ms if spent_ms else None for spent_ms in (self.encode_ms, self.decode_ms)]
        losses = (self.cosine, self.error, self.loss, self.gradient, self.image_gradient)
        return row_of(COLUMNS, features, num_crops, self.name, self.kib, *speeds, self.decode_ms, *losses)


def read_crops(photos: Path, crop_px: int, count: int) -> Tensor:
    """Return crops of as many photos, RGB in [0, 1], the orientations in turn.

    Raises:
        SystemExit: There are too few photos of that size.
    """
    crops: list[np.ndarray] = []
    for file in sorted(path for path in photos.rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg"}):
        image = np.asarray(Image.open(file).convert("RGB"))
        if min(image.shape[:2]) >= crop_px and len(crops) < count:
            top_px, left_px = ((side - crop_px) // 2 for side in image.shape[:2])
            crops.append(Crop(top_px, left_px, crop_px, len(crops) % NUM_DIHEDRALS).apply(image))
    if len(crops) < count:
        raise SystemExit(f"{photos} has {len(crops)} photos of {crop_px} px or more, --crops {count} needs as many")
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


def upscaled(hr: Tensor) -> Tensor:
    """Return a fake: HR made small and large again."""
    small = F.interpolate(hr, scale_factor=1 / SCALE, mode="bicubic", antialias=True)
    return F.interpolate(small, scale_factor=SCALE, mode="bicubic").clamp(0, 1)


@torch.inference_mode()
def extract(extractor: SemanticExtractor, hr: Tensor) -> Tensor:
    """Return the features of crops, one at a time as the cache's job does."""
    return torch.cat([extractor(crop[None]) for crop in hr])


def train_discriminator(hr: Tensor, features: Tensor, num_steps: int, batch: int) -> PatchDiscriminator:
    """Let P+SeD, at the demo's size, learn to tell photos from fakes."""
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(16, features.shape[1], residual=True)
    optimizer = torch.optim.Adam(discriminator.parameters(), 1e-4, (0.9, 0.99))
    for step in range(num_steps):
        chosen = torch.arange(step * batch, (step + 1) * batch) % len(hr)
        optimizer.zero_grad()
        discriminator_loss(discriminator, hr[chosen], upscaled(hr[chosen]), features[chosen]).backward()
        optimizer.step()
    return discriminator.eval()  # the spectral norms stand still: only the features change


def discriminator_loss(discriminator: nn.Module, real: Tensor, fake: Tensor, features: Tensor) -> Tensor:
    """Return the loss of both halves."""
    return sum(VanillaLoss().discriminator(discriminator(real, features), discriminator(fake, features)), Tensor([0]))


@dataclasses.dataclass(frozen=True)
class Effect:
    """What the features do in a step: the discriminator's loss, its gradient, and the fake image's."""

    loss: float
    gradient: Tensor
    image_gradient: Tensor

    def change_to(self, other: Effect) -> tuple[float, float, float]:
        """Return the relative change of each."""
        pairs = ((self.gradient, other.gradient), (self.image_gradient, other.image_gradient))
        changes = [float((theirs - ours).norm() / ours.norm()) for ours, theirs in pairs]
        return abs(other.loss - self.loss) / self.loss, changes[0], changes[1]


def effect_of(
    discriminator: nn.Module, hr: Tensor, features: Tensor, batch: int, *, in_bfloat16: bool = False
) -> Effect:
    """Measure it over all crops, a batch at a time."""
    autocast = functools.partial(torch.autocast, "cpu", torch.bfloat16, enabled=in_bfloat16)
    loss, gradient, image_gradients = 0.0, torch.zeros(()), []
    for start in range(0, len(hr), batch):
        real, shown = hr[start : start + batch], features[start : start + batch]
        fake = upscaled(real).requires_grad_()
        with autocast():
            value = discriminator_loss(discriminator, real, fake.detach(), shown)
            image_loss = VanillaLoss().generator(discriminator(fake, shown))
        parts = torch.autograd.grad(value, list(discriminator.parameters()), allow_unused=True)
        gradient = gradient + torch.cat([part.flatten() for part in parts if part is not None])
        image_gradients.append(torch.autograd.grad(image_loss, fake)[0].flatten())
        loss += value.item() * len(real) / len(hr)
    return Effect(loss, gradient, torch.cat(image_gradients))


def cpu_ms(work: Callable[[], object], repeats: int = 5) -> float:
    """Return milliseconds of processor time, the median."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(1e3 * (time.process_time() - start))
    return statistics.median(spent)


def losses_of(before: Tensor, after: Tensor) -> tuple[float, float]:
    """Return the least cosine over crops, and the largest error over the largest value."""
    cosines = F.cosine_similarity(before.flatten(1).double(), after.flatten(1).double())
    return float(cosines.min()), float((after - before).abs().max() / before.abs().max())


def measure(sample: Tensor, features: Tensor, effect: Callable[..., Effect]) -> Iterator[Outcome]:
    """Yield the yardstick, then a row for each codec."""
    channels, rows, columns = features.shape[1:]
    reference = effect(features)
    stored = [feature.half().numpy() for feature in features]
    in_bfloat16 = effect(features, in_bfloat16=True)
    yield Outcome("none, step in bfloat16", None, None, None, None, 0.0, *reference.change_to(in_bfloat16))
    for codec in CODECS:
        coding = codec.bind((channels, rows, columns), codec.fit(feature.half().numpy() for feature in sample))
        payloads = [coding.encode(feature) for feature in stored]
        after = torch.from_numpy(np.stack([coding.decode(payload) for payload in payloads])).float()
        encode_ms = statistics.median(cpu_ms(functools.partial(coding.encode, one)) for one in stored)
        decode_ms = statistics.median(cpu_ms(functools.partial(coding.decode, one)) for one in payloads)
        kib = statistics.mean(map(len, payloads)) / 2**10
        changes = reference.change_to(effect(after))
        yield Outcome(codec.name, kib, encode_ms, decode_ms, *losses_of(features, after), *changes)


def add_effect_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the extractor, its crops, and the discriminator on which an effect is measured."""
    parser.add_argument("--architecture", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--layer", type=int, default=3)
    parser.add_argument("--weights", default="package")
    parser.add_argument("--crop-px", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50, help="of the discriminator, before it is measured")


def main() -> None:
    """Extract once, measure every codec, publish the table and print the smallest within the bound."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos of at least --crop-px")
    add_effect_arguments(parser)
    parser.add_argument("--crops", type=int, default=64, help="a multiple of 16: eight orientations in each half")
    add_json_argument(parser)
    options = parser.parse_args()
    options.threads = 1
    torch.set_num_threads(1)
    extractor = build_semantic_extractor(options.architecture, options.layer, options.weights, crop_px=options.crop_px)
    hr = read_crops(options.photos, options.crop_px, options.crops)
    features, half = extract(extractor, hr).clone(), len(hr) // 2
    discriminator = train_discriminator(hr[:half], features[:half], options.steps, options.batch)
    print(f"{extractor.description}\n{half} crops of {options.crop_px} px, {tuple(features.shape[1:])} each")
    effect = functools.partial(effect_of, discriminator, hr[half:], batch=options.batch)
    yardstick, *coded = outcomes = list(measure(features[:half], features[half:], effect))
    name = f"{options.architecture} layer {options.layer}, {options.weights}"
    rows = [outcome.row(name, half) for outcome in outcomes]
    publish("feature-codecs", COLUMNS, rows, options, libraries=("torch", "numcodecs"))
    fitting = [outcome for outcome in coded if outcome.is_within_bound(yardstick)]
    print(f"smallest that moves gradients less than bfloat16, with a cosine of {COSINE} and under {DECODE_MS:g} ms:")
    print(min(fitting, key=lambda outcome: outcome.kib or 0.0).name if fitting else "none")


if __name__ == "__main__":
    main()
