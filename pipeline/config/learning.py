"""Losses and schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.errors import not_negative, positive, refuse
from pipeline.losses import IMAGE_LOSSES, AdversarialLossName, ImageLossName, PerceptualLossName
from pipeline.registry import unregistered
from shards.format.expansion import expand


@dataclass(frozen=True)
class LossConfig:
    """Losses of both networks. All but the pixel loss start after the pixel stage."""

    pixel: ImageLossName
    """Pixel loss."""
    pixel_weight: float
    """Weight of the pixel loss."""
    perceptual_weight: float
    """Weight of the perceptual loss; 0: none, and the network is not loaded."""
    perceptual_weights: str
    """For vgg19: torchvision (its own download), a file, or random (seeded: for tests only). For efficientnet-lite0:
    package (in the extra `demo`)."""
    adversarial: AdversarialLossName
    """Adversarial loss of both networks; the paper's is vanilla."""
    adversarial_weight: float
    """Weight of the generator's adversarial loss."""
    perceptual: PerceptualLossName = PerceptualLossName("vgg19")
    """Frozen network of the perceptual loss; the paper's is vgg19."""
    perceptual_seed: int = 0
    """Seed of random perceptual weights."""
    ldl_weight: float = 0.0
    """Weight of LDL, which compares with the averaged generator (one more pass); LDL's authors use 1.0; 0: none."""
    r1_weight: float = 0.0
    """Weight of an approximate R1: a penalty on the discriminator's gradient at real images, by one more pass on noisy
    ones. For a discriminator that saturates, and with relativistic_pairwise; 0: none."""
    r2_weight: float = 0.0
    """The same at fake images (R2)."""
    penalty_sigma: float = 0.01
    """Standard deviation of that noise, on the scale of [0, 1] images."""
    extra: Mapping[str, float] = field(default_factory=dict)
    """Weights of further image losses by name, from the adversarial stage on; a name is one of the registry's."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        object.__setattr__(self, "perceptual_weights", expand(self.perceptual_weights))
        refuse(
            [
                *(fault for name in self.extra for fault in unregistered("extra", name, IMAGE_LOSSES)),
                *positive(penalty_sigma=self.penalty_sigma),
                *not_negative(
                    pixel_weight=self.pixel_weight,
                    perceptual_weight=self.perceptual_weight,
                    adversarial_weight=self.adversarial_weight,
                    ldl_weight=self.ldl_weight,
                    r1_weight=self.r1_weight,
                    r2_weight=self.r2_weight,
                    **{f"extra.{name}": weight for name, weight in self.extra.items()},
                ),
            ]
        )

    @property
    def compares_with_average(self) -> bool:
        """Whether a term compares with the averaged generator."""
        return self.ldl_weight > 0 or any(IMAGE_LOSSES[name].needs_average for name in (self.pixel, *self.extra))


@dataclass(frozen=True)
class ScheduleConfig:
    """Length of the stages and learning-rate schedule. All amounts in images seen."""

    total_images: int
    """Length of the run; the last step may exceed it by less than a batch."""
    pixel_only_images: int
    """Length of the pixel stage: pixel loss only, no discriminator."""
    generator_learning_rate: float
    """Highest learning rate of the generator's Adam."""
    discriminator_learning_rate: float
    """Highest learning rate of the discriminator's Adam."""
    betas: tuple[float, float]
    """Adam's betas, both networks."""
    milestones_images: tuple[int, ...]
    """Each network's learning rate is multiplied by `gamma` at each, counted from that network's first step."""
    gamma: float
    """Factor at a milestone."""
    gradient_clip_norm: float
    """Largest gradient norm of each network; 0: no clipping."""
    ema_half_life_images: float
    """Half-life of the exponential moving average of the generator; 0: no averaging."""
    learning_rate_warmup_images: int = 0
    """Each network's learning rate rises in a line over so many images from that network's first step; 0: no rise. For
    weights that a first large step would spoil: a transformer, AdamW, a large batch."""
    learning_rate_decay: Literal["milestones", "cosine"] = "milestones"
    """milestones: in steps, as in the papers; cosine: from the warm-up's end to 0 at the end of the run, without
    milestones to choose (Loshchilov and Hutter 2017, arXiv:1608.03983, Eq. 5)."""
    weight_decay: float = 0.0
    """Decoupled weight decay of both networks (AdamW, arXiv:1711.05101); 0: Adam. For transformers that overfit."""
    discriminator_warmup_images: int = 0
    """Warm-up: number of images at the start of the adversarial stage for which only the discriminator is updated."""
    discriminator_clock: Literal["own", "run"] = "own"
    """own: the discriminator's schedule counts from its own first step, after the pixel stage; run: from the run's, as
    in runs of earlier versions, which resume with it."""
    generator_every_steps: int = 1
    """In the adversarial stage the generator is updated in every N-th step, the discriminator in each."""
    discriminator_max_accuracy: float = 0.0
    """Adaptive discriminator: it is not updated while the running mean of its accuracy, over real and fake images of
    all ranks, is above this (Wu et al. 2016, arXiv:1610.07584, Sec. 3.1, with 0.8). For one that wins too easily;
    each adversarial step then waits for the device. Above 0.5 and below 1; 0: updated in every step."""
    stop_after_no_improvement_images: int = 0
    """Patience: end the run at a validation when the best one, by `report.keep_best`, is so many images ago; the
    adversarial stage is given as many from its start. 0: train to the end."""
    max_skipped_updates: int = 20
    """An update whose loss or gradient is NaN or infinite on any rank is skipped on all; after so many consecutive ones
    of one network the run stops at the next report, with a file that names their samples."""

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
                    stop_after_no_improvement_images=self.stop_after_no_improvement_images,
                ),
                *not_negative(
                    learning_rate_warmup_images=self.learning_rate_warmup_images, weight_decay=self.weight_decay
                ),
                *self._max_accuracy_faults(),
                "learning_rate_decay='cosine' takes no milestones_images; leave them empty"
                if self.learning_rate_decay == "cosine" and self.milestones_images
                else None,
                None
                if list(self.milestones_images) == sorted(set(self.milestones_images))
                else f"milestones_images={list(self.milestones_images)} must increase",
            ]
        )

    def _max_accuracy_faults(self) -> list[str]:
        limit, faults = self.discriminator_max_accuracy, []
        if limit != 0 and not 0.5 < limit < 1:
            faults.append(
                f"discriminator_max_accuracy={limit} must be above 0.5 (chance) and below 1, such as 0.9; 0: no limit"
            )
        if limit and self.generator_every_steps > 1:
            faults.append(
                f"discriminator_max_accuracy={limit} slows the discriminator and generator_every_steps="
                f"{self.generator_every_steps} the generator; set one of them: discriminator_max_accuracy=0 or "
                "generator_every_steps=1"
            )
        return faults

    def learning_rate_factor(self, images_seen: int, start_images: int = 0) -> float:
        """Return the factor on the learning rate of a network at a position of the run.

        Args:
            images_seen: The position.
            start_images: Position of the network's first step.
        """
        since_start, warmup = images_seen - start_images, self.learning_rate_warmup_images
        rise = min((since_start + 1) / (warmup + 1), 1.0)
        if self.learning_rate_decay == "cosine":
            left = self.total_images - start_images - warmup
            progress = min(max(since_start - warmup, 0) / max(left, 1), 1.0)
            return rise * (1 + math.cos(math.pi * progress)) / 2
        return rise * self.gamma ** sum(since_start >= milestone for milestone in self.milestones_images)

    def learning_rates(self, images_seen: int) -> tuple[float, float]:
        """Return the learning rates of generator and discriminator at a position of the run."""
        start = self.pixel_only_images if self.discriminator_clock == "own" else 0
        return (
            self.generator_learning_rate * self.learning_rate_factor(images_seen),
            self.discriminator_learning_rate * self.learning_rate_factor(images_seen, start),
        )

    def generator_rests(self, images_seen: int, batch_size: int) -> bool:
        """Return whether the adversarial step at a position leaves the generator as it is.

        As BasicSR's `net_d_init_iters` and `net_d_iters` (`basicsr/models/srgan_model.py`): the generator's turn is the
        last of every `generator_every_steps`, counted from the first adversarial step.
        """
        since_start = images_seen - self.pixel_only_images
        step_of_stage = since_start // batch_size
        is_its_turn = (step_of_stage + 1) % self.generator_every_steps == 0
        return since_start < self.discriminator_warmup_images or not is_its_turn

    def discriminator_rests(self, accuracy: float) -> bool:
        """Return whether a discriminator whose accuracy has this running mean is left as it is."""
        return 0 < self.discriminator_max_accuracy < accuracy

    def ema_decay(self, batch_size: int) -> float:
        """Return the decay of the moving average for a step of `batch_size` images; 0 copies the weights."""
        return 0.5 ** (batch_size / self.ema_half_life_images) if self.ema_half_life_images else 0.0
