"""What the networks learn from, how long and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import not_negative, positive, refuse


@dataclass(frozen=True)
class LossConfig:
    """Weights of the generator's loss terms. All but the pixel loss begin after the pixel stage."""

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
    ldl_weight: float = 0.0
    """Weight of LDL, which compares with the averaged generator (a further pass); LDL's own is 1.0, 0 leaves it out."""

    def __post_init__(self) -> None:
        """Check ranges."""
        refuse(
            not_negative(
                pixel_weight=self.pixel_weight,
                perceptual_weight=self.perceptual_weight,
                adversarial_weight=self.adversarial_weight,
                ldl_weight=self.ldl_weight,
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
    discriminator_warmup_images: int = 0
    """First images of the adversarial stage in which the discriminator learns alone; the generator rests."""
    generator_every_steps: int = 1
    """In the adversarial stage the generator learns in every N-th step, the discriminator in each."""
    max_skipped_updates: int = 20
    """An update whose loss or gradient is NaN or infinite on any process is left out on all; after so many of one
    network in a row the run stops at the next report, with a file that names their samples."""

    def __post_init__(self) -> None:
        """Check ranges and order."""
        refuse(
            [
                *positive(
                    total_images=self.total_images,
                    generator_learning_rate=self.generator_learning_rate,
                    discriminator_learning_rate=self.discriminator_learning_rate,
                    gamma=self.gamma,
                    generator_every_steps=self.generator_every_steps,
                    max_skipped_updates=self.max_skipped_updates,
                ),
                *not_negative(
                    pixel_only_images=self.pixel_only_images,
                    discriminator_warmup_images=self.discriminator_warmup_images,
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

    def generator_rests(self, images_seen: int, batch_size: int) -> bool:
        """Return whether the generator sits out the adversarial step at a position.

        As BasicSR's `net_d_init_iters` and `net_d_iters` (`basicsr/models/srgan_model.py`): the generator's turn is the
        last of every `generator_every_steps`, counted from the first adversarial step.
        """
        since_start = images_seen - self.pixel_only_images
        step_of_stage = since_start // batch_size
        is_its_turn = (step_of_stage + 1) % self.generator_every_steps == 0
        return since_start < self.discriminator_warmup_images or not is_its_turn

    def ema_decay(self, batch_size: int) -> float:
        """Return the share of the old average that one step of `batch_size` images keeps; 0 copies the weights."""
        return 0.5 ** (batch_size / self.ema_half_life_images) if self.ema_half_life_images else 0.0
