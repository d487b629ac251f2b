"""Warnings about the balance of generator and discriminator, from the values of the reports alone.

A resumed run replays its metrics file, so that it warns where an uninterrupted one would.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.losses import adversarial_term

AT_CHANCE = (0.48, 0.52)
SATURATED = 0.98
SMALLEST_SHARE = 0.01
LARGEST_REST_SHARE = 0.9


@dataclass(frozen=True)
class _Symptom:
    """One imbalance.

    Attributes:
        value: The number of a discriminator, by name, that shows it; None where a report does not have it.
        is_off: Whether the number is out of balance.
        text: Its meaning and what to change.
    """

    value: Callable[[Mapping[str, float], str], float | None]
    is_off: Callable[[float], bool]
    text: str


def _accuracy(values: Mapping[str, float], name: str) -> float | None:
    real, fake = (values.get(f"{name}/accuracy_{side}") for side in ("real", "fake"))
    return None if real is None or fake is None else (real + fake) / 2


def _adversarial_share(values: Mapping[str, float], name: str) -> float | None:
    return values.get(f"gradient_share/{adversarial_term(name)}")


def _rest_share(values: Mapping[str, float], name: str) -> float | None:
    return values.get(f"{name}/rest_share")


def _called(name: str) -> dict[str, str]:
    if name == "discriminator":
        return {"whose": "the discriminator", "weight": "losses.adversarial_weight"}
    return {"whose": name.replace("_", " "), "weight": "its adversarial_weight in further_discriminators"}


_SYMPTOMS = {
    "chance": _Symptom(
        _accuracy,
        lambda accuracy: AT_CHANCE[0] <= accuracy <= AT_CHANCE[1],
        "{whose} is at chance (accuracy {value:.3f} over the last {images:,} images), so its gradient "
        "carries no information. Raise schedule.discriminator_learning_rate, lower {weight}, or train "
        "it alone first with schedule.discriminator_warmup_images",
    ),
    "saturated": _Symptom(
        _accuracy,
        lambda accuracy: accuracy > SATURATED,
        "{whose} is saturated (accuracy {value:.3f} over the last {images:,} images), so its gradient hardly "
        "depends on the output. Lower schedule.discriminator_learning_rate, set schedule.generator_every_steps to 1, "
        "let it rest while it wins (schedule.discriminator_max_accuracy, such as 0.9), or use --losses.adversarial "
        "relativistic_average",
    ),
    "resting": _Symptom(
        _rest_share,
        lambda share: share > LARGEST_REST_SHARE,
        "{whose} rested in {value:.0%} of the steps (over the last {images:,} images): even without updates "
        "its accuracy stays above schedule.discriminator_max_accuracy, and the generator trains against one that "
        "hardly changes. Raise losses.adversarial_weight or schedule.generator_learning_rate, or that accuracy",
    ),
    "share": _Symptom(
        _adversarial_share,
        lambda share: share < SMALLEST_SHARE,
        "the adversarial loss against {whose} makes up {value:.2%} of the generator's gradient (over the last "
        "{images:,} images), so the generator trains almost without it. Raise {weight}, or lower the other losses' "
        "weights",
    ),
}


class GanHealth:
    """Follows the reports and warns once of each imbalance that lasts.

    Args:
        after_images: How long an imbalance must last; 0: no warnings.
    """

    def __init__(self, after_images: int) -> None:
        self._after_images = after_images
        self._position = 0
        self._since: dict[tuple[str, str], int] = {}
        self._warned: set[tuple[str, str]] = set()

    def add(self, images_seen: int, values: Mapping[str, float]) -> list[str]:
        """Add a report; return the warnings that are due now."""
        due = []
        discriminators = dict.fromkeys(name.partition("/")[0] for name in values if name.startswith("discriminator"))
        for name, kind in itertools.product(discriminators, _SYMPTOMS):
            symptom, key = _SYMPTOMS[kind], (name, kind)
            value = symptom.value(values, name)
            if value is None:
                continue
            if not symptom.is_off(value):
                self._since.pop(key, None)
                self._warned.discard(key)
                continue
            images = images_seen - self._since.setdefault(key, self._position)
            if self._after_images and images >= self._after_images and key not in self._warned:
                self._warned.add(key)
                due.append(symptom.text.format(**_called(name), value=value, images=images))
        self._position = images_seen
        return due
