"""Every knob of a run: frozen dataclasses, checked when built, never edited afterwards.

A preset is one `Preset`: the `[shards]` table is what `jobs/shard.py` writes, the `[train]` tables are what
`jobs/train_sed.py` does with it. Amounts of work are counted in images, not steps, so that batch size and number
of processes may change without touching a schedule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import ConfigError
from shards.config import ShardConfig


def _refuse(faults: Iterable[str | None]) -> None:
    found = [fault for fault in faults if fault]
    if found:
        raise ConfigError("; ".join(found))


def _positive(**values: float) -> list[str]:
    return [f"{name}={value} must be above 0" for name, value in values.items() if not value > 0]


def _not_negative(**values: float) -> list[str]:
    return [f"{name}={value} must be 0 or above" for name, value in values.items() if not value >= 0]


@dataclass(frozen=True)
class DataConfig:
    """What a step reads."""

    shards: Path
    """Folder written by jobs/shard.py."""
    crop_px: int
    """Side of the HR crop that the networks see; a multiple of 16 (one cell of the semantic grid)."""
    canvas_px: int
    """Side of the HR patch that a real-world degradation works on before the crop; ignored for classical shards."""
    batch_size: int
    """Images a step, over all processes; the number of processes must divide it."""
    num_workers: int
    """Loader processes for each training process; the data does not depend on it."""

    def __post_init__(self) -> None:
        """Check ranges."""
        nearest = max(16, round(self.crop_px / 16) * 16)
        _refuse(
            [
                *_positive(crop_px=self.crop_px, batch_size=self.batch_size),
                *_not_negative(num_workers=self.num_workers),
                f"crop_px={self.crop_px} is no multiple of 16; nearest is {nearest}" if self.crop_px % 16 else None,
                f"canvas_px={self.canvas_px} is smaller than crop_px={self.crop_px}"
                if self.canvas_px < self.crop_px
                else None,
            ]
        )


@dataclass(frozen=True)
class GeneratorConfig:
    """The network that is trained to upscale."""

    architecture: Literal["rrdb", "swinir", "compact"]
    """rrdb: RRDBNet of ESRGAN; swinir: SwinIR; compact: SRVGGNetCompact of Real-ESRGAN."""
    scale: Literal[2, 3, 4]
    """Enlargement."""
    num_features: int
    """Channels of the body (SwinIR: embedding dimension)."""
    num_blocks: int
    """rrdb: RRDBs; swinir: residual Swin transformer blocks; compact: convolutions of the body."""
    growth_channels: int = 32
    """rrdb: channels that each dense convolution adds."""
    layers_per_block: int = 6
    """swinir: Swin layers in each block."""
    num_heads: int = 6
    """swinir: attention heads."""
    window_size: int = 8
    """swinir: side of an attention window, LQ px."""
    drop_path_rate: float = 0.1
    """swinir: stochastic depth of the deepest layer."""
    gradient_checkpointing: bool = False
    """Recompute activations block by block in the backward pass: less memory, about a third more time."""
    initial_weights: Path | None = None
    """Generator file to start from (ours, BasicSR's, Real-ESRGAN's, KAIR's, SwinIR's); none: random."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _refuse(_positive(num_features=self.num_features, num_blocks=self.num_blocks))


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The network that judges."""

    architecture: Literal["patch", "unet", "image"]
    """patch: PatchGAN (P); unet: pixel-wise U-Net (U); image: VGG-style, one verdict an image (I)."""
    semantic: bool
    """True: SeD, with semantic-aware fusion blocks; false: the plain baseline."""
    num_features: int
    """Channels of the first layer; the paper's is 64."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _refuse(_positive(num_features=self.num_features))


@dataclass(frozen=True)
class SemanticsConfig:
    """Where the discriminator's semantics come from. Only read when discriminator.semantic is true."""

    source: Literal["online", "cached", "auto"]
    """online: the extractor runs every step; cached: read from `cache`; auto: cached where `cache` exists."""
    cache: Path
    """Folder written by jobs/cache_features.py."""
    architecture: str
    """Frozen vision model; the paper's is clip-rn50."""
    layer: int
    """Stage whose output is used; the paper's is 3."""
    weights: str
    """openai (downloaded by open_clip), a file, or random (seeded: for demos and tests only)."""
    seed: int = 0
    """Seed of random weights."""
    batch_statistics: bool = False
    """True reproduces the paper's released code, whose extractor stays in training mode; it cannot be cached."""

    def __post_init__(self) -> None:
        """Check that features which depend on the batch are not cached."""
        conflict = self.batch_statistics and self.source != "online"
        _refuse(["batch_statistics=true depends on the batch: set source='online'" if conflict else None])


@dataclass(frozen=True)
class LossConfig:
    """Weights of the generator's loss terms. The adversarial and perceptual ones begin after the pixel stage."""

    pixel: Literal["l1", "charbonnier"]
    """Pixel loss."""
    pixel_weight: float
    """Weight of the pixel loss."""
    perceptual_weight: float
    """Weight of the VGG19 perceptual loss; 0 leaves the network out."""
    perceptual_weights: str
    """torchvision (its own download), a file, or random (seeded: for demos and tests only)."""
    adversarial: Literal["vanilla", "least_squares", "hinge", "relativistic_average"]
    """Adversarial loss, both sides."""
    adversarial_weight: float
    """Weight of the generator's adversarial loss."""
    perceptual_seed: int = 0
    """Seed of random perceptual weights."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _refuse(
            _not_negative(
                pixel_weight=self.pixel_weight,
                perceptual_weight=self.perceptual_weight,
                adversarial_weight=self.adversarial_weight,
            )
        )


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, how fast. All amounts in images seen."""

    total_images: int
    """Length of the run; the last step may go beyond by less than a batch."""
    pixel_only_images: int
    """Length of the first stage, on the pixel loss alone; the discriminator rests."""
    generator_learning_rate: float
    """Learning rate of the generator's Adam."""
    discriminator_learning_rate: float
    """Learning rate of the discriminator's Adam."""
    betas: tuple[float, float]
    """Adam's betas, both networks."""
    milestones_images: tuple[int, ...]
    """Both learning rates are multiplied by `gamma` at each."""
    gamma: float
    """Factor at a milestone."""
    gradient_clip_norm: float
    """Largest gradient norm of each network; 0: no clipping."""
    ema_half_life_images: float
    """Half-life of the exponential moving average of the generator; 0: no averaging."""

    def __post_init__(self) -> None:
        """Check ranges and order."""
        _refuse(
            [
                *_positive(
                    total_images=self.total_images,
                    generator_learning_rate=self.generator_learning_rate,
                    discriminator_learning_rate=self.discriminator_learning_rate,
                    gamma=self.gamma,
                ),
                *_not_negative(
                    pixel_only_images=self.pixel_only_images,
                    gradient_clip_norm=self.gradient_clip_norm,
                    ema_half_life_images=self.ema_half_life_images,
                ),
                None
                if list(self.milestones_images) == sorted(set(self.milestones_images))
                else f"milestones_images={list(self.milestones_images)} must rise",
            ]
        )

    def learning_rate_factor(self, images_seen: int) -> float:
        """Return what both learning rates are multiplied by after `images_seen` images."""
        return self.gamma ** sum(images_seen >= milestone for milestone in self.milestones_images)

    def ema_decay(self, batch_size: int) -> float:
        """Return the share of the old average that one step of `batch_size` images keeps; 0 copies the weights."""
        return 0.5 ** (batch_size / self.ema_half_life_images) if self.ema_half_life_images else 0.0


@dataclass(frozen=True)
class RuntimeConfig:
    """How the numbers are computed."""

    precision: Literal["float32", "bf16"]
    """bf16: autocast of the networks; losses, metrics and weights stay float32."""
    channels_last: bool
    """Memory layout of the convolutions' tensors."""
    compile: bool
    """torch.compile of generator and discriminator."""
    discriminator_pass: Literal["separate", "shared"]
    """separate: each network's update passes the output through the discriminator, as the paper's code does; shared:
    one pass serves both, faster and with one spectral-norm iteration less a step (not for DeepSpeed, nor for the
    relativistic loss)."""
    deterministic: bool
    """Deterministic algorithms only: the same bits on the same kind of device, at some cost on a GPU."""


@dataclass(frozen=True)
class ReportConfig:
    """What is written down while training, and when. All intervals in images, multiples of `every_images`."""

    every_images: int
    """Losses to the terminal, metrics.jsonl and MLflow."""
    validate_every_images: int
    """PSNR and SSIM on `validation_sets`, pictures to MLflow; also at the end of the run."""
    checkpoint_every_images: int
    """A checkpoint; also at the end of the run and on SIGTERM."""
    keep_checkpoints: int
    """The newest N stay."""
    validation_sets: tuple[Path, ...]
    """Folders with HR/ and, optionally, LRx4/."""
    experiment: str
    """MLflow experiment."""

    def __post_init__(self) -> None:
        """Check ranges and that the intervals nest, so that a report never spans a checkpoint."""
        positive = _positive(
            every_images=self.every_images,
            validate_every_images=self.validate_every_images,
            checkpoint_every_images=self.checkpoint_every_images,
            keep_checkpoints=self.keep_checkpoints,
        )
        nested = {
            "validate_every_images": self.validate_every_images,
            "checkpoint_every_images": self.checkpoint_every_images,
        }
        every = max(self.every_images, 1)
        loose = [
            f"{name}={value} is no multiple of every_images={every}; "
            f"nearest is {max(every, round(value / every) * every)}"
            for name, value in nested.items()
            if value % every
        ]
        _refuse(positive + loose)


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    run_dir: Path
    """Folder of the run; the same command on the same folder resumes."""
    seed: int
    """Seed of the initial weights and of the order of samples."""
    data: DataConfig
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    semantics: SemanticsConfig
    losses: LossConfig
    schedule: ScheduleConfig
    runtime: RuntimeConfig
    report: ReportConfig

    def __post_init__(self) -> None:
        """Check what no section can check alone."""
        batch, scale = self.data.batch_size, self.generator.scale
        _refuse(
            [
                f"data.crop_px={self.data.crop_px} is no multiple of generator.scale={scale}"
                if self.data.crop_px % scale
                else None,
                f"report.every_images={self.report.every_images} is no multiple of data.batch_size={batch}; "
                f"nearest is {max(batch, round(self.report.every_images / batch) * batch)}"
                if self.report.every_images % batch
                else None,
            ]
        )

    @property
    def num_steps(self) -> int:
        """Optimisation steps of the whole run."""
        return math.ceil(self.schedule.total_images / self.data.batch_size)

    @property
    def is_adversarial(self) -> bool:
        """Whether any step of the run trains the discriminator."""
        return self.losses.adversarial_weight > 0 and self.schedule.pixel_only_images < self.schedule.total_images


@dataclass(frozen=True)
class Preset:
    """A preset file: what to write, and what to train on it."""

    shards: ShardConfig
    train: TrainConfig
