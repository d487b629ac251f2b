"""Settings of a run that depart from the paper's released code, listed by name before it starts."""

from __future__ import annotations

from pipeline.config.schema import Preset, TrainConfig

_STEPS = 300_000
_EXTRACTOR = "open_clip:RN50"
_MILESTONES_STEPS = (100_000, 200_000)
# The released options differ here between P and U.
_PERCEPTUAL_WEIGHT = {"patch": 0.1, "unet": 1.0}


def departures(preset: Preset) -> list[str]:
    """Return a line for each setting of an adversarial run that is not the paper's; empty for a run on pixels.

    References:
        Li et al. 2024, SeD, arXiv:2402.19387; lbc12345/SeD at 311195f, options/ and train.py, for the classical task.
    """
    config = preset.train
    if not config.is_adversarial:
        return []
    if preset.shards.degradation == "realworld":
        return ["the paper's options for the real-world task were not released: there is nothing to compare with"]
    return [
        f"{name}={_plain(value)} (the paper: {_plain(papers)})"
        for name, value, papers in _compared(config)
        if value != papers
    ]


def _compared(config: TrainConfig) -> list[tuple[str, object, object]]:
    semantics, losses, schedule, batch = config.semantics, config.losses, config.schedule, config.data.batch_size
    augmentation = config.data.augmentation
    milestones = tuple(milestone / batch for milestone in schedule.milestones_images)
    return [
        ("data.crop_px", config.data.crop_px, 256),
        ("data.batch_size", batch, 32),
        ("data.augmentation.cutblur_probability", augmentation.cutblur_probability, 0.0),
        ("data.augmentation.mixup_probability", augmentation.mixup_probability, 0.0),
        ("data.augmentation.cutmix_probability", augmentation.cutmix_probability, 0.0),
        ("discriminator.semantic", config.discriminator.semantic, True),
        *(
            (f"further_discriminators.{number}", one.network.architecture, "none")
            for number, one in enumerate(config.further_discriminators)
        ),
        ("semantics.architecture", semantics.architecture.removesuffix(":openai"), _EXTRACTOR),
        ("semantics.layer", _layer(config), 3),
        ("semantics.weights", semantics.weights, "pretrained"),
        ("semantics.batch_statistics", semantics.batch_statistics, True),
        ("semantics.shuffled", semantics.shuffled, False),
        ("losses.pixel", losses.pixel, "l1"),
        ("losses.pixel_weight", losses.pixel_weight, 1.0),
        ("losses.perceptual", losses.perceptual, "vgg19"),
        ("losses.perceptual_weight", losses.perceptual_weight, _papers_perceptual_weight(config)),
        ("losses.perceptual_weights", losses.perceptual_weights, "torchvision"),
        ("losses.adversarial", losses.adversarial, "vanilla"),
        ("losses.adversarial_weight", losses.adversarial_weight, 0.01),
        ("losses.ldl_weight", losses.ldl_weight, 0.0),
        ("losses.r1_weight", losses.r1_weight, 0.0),
        ("losses.r2_weight", losses.r2_weight, 0.0),
        *((f"losses.extra.{name}", weight, 0.0) for name, weight in losses.extra.items()),
        ("schedule.total_images in steps", config.num_steps, _STEPS),
        ("schedule.pixel_only_images", schedule.pixel_only_images, 0),
        ("schedule.milestones_images in steps", milestones, _MILESTONES_STEPS),
        ("schedule.learning_rate_decay", schedule.learning_rate_decay, "milestones"),
        ("schedule.learning_rate_warmup_images", schedule.learning_rate_warmup_images, 0),
        ("schedule.weight_decay", schedule.weight_decay, 0.0),
        ("schedule.generator_learning_rate", schedule.generator_learning_rate, 1e-4),
        ("schedule.discriminator_learning_rate", schedule.discriminator_learning_rate, 1e-4),
        ("schedule.discriminator_max_accuracy", schedule.discriminator_max_accuracy, 0.0),
        ("schedule.betas", schedule.betas, (0.9, 0.99)),
        ("schedule.gradient_clip_norm", schedule.gradient_clip_norm, 0.0),
        ("schedule.ema_half_life_images", schedule.ema_half_life_images, 0.0),
        ("runtime.precision", config.runtime.precision, "float32"),
        ("runtime.discriminator_pass", config.runtime.discriminator_pass, "separate"),
    ]


def _layer(config: TrainConfig) -> int | str:
    """Return the layer of the paper's extractor by its index; of another extractor there is nothing to compare."""
    semantics = config.semantics
    is_papers = semantics.architecture.startswith(_EXTRACTOR) and semantics.layer != "layer3"
    return semantics.layer if is_papers else 3


def _papers_perceptual_weight(config: TrainConfig) -> float:
    return _PERCEPTUAL_WEIGHT.get(config.discriminator.architecture, config.losses.perceptual_weight)


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
