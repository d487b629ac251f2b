"""Warnings about the balance of generator and discriminator, from the values of the reports alone.

A resumed run replays its metrics file, so that it warns where an uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

AT_CHANCE = (0.48, 0.52)
SATURATED = 0.98
SMALLEST_SHARE = 0.01
LARGEST_REST_SHARE = 0.9


@dataclass(frozen=True)
class _Symptom:
    """One imbalance.

    Attributes:
        value: The number that shows it; None where a report does not have it.
        is_off: Whether the number is out of balance.
        text: Its meaning and what to change.
    """

    value: Callable[[Mapping[str, float]], float | None]
    is_off: Callable[[float], bool]
    text: str


def _accuracy(values: Mapping[str, float]) -> float | None:
    sides = [values.get(f"discriminator/accuracy_{side}") for side in ("real", "fake")]
    real, fake = sides
    return None if real is None or fake is None else (real + fake) / 2


def _adversarial_share(values: Mapping[str, float]) -> float | None:
    return values.get("gradient_share/adversarial")


def _rest_share(values: Mapping[str, float]) -> float | None:
    return values.get("discriminator/rest_share")


_SYMPTOMS = {
    "chance": _Symptom(
        _accuracy,
        lambda accuracy: AT_CHANCE[0] <= accuracy <= AT_CHANCE[1],
        "the discriminator is at chance (accuracy {value:.3f} over the last {images:,} images), so its gradient "
        "carries no information. Raise schedule.discriminator_learning_rate, lower losses.adversarial_weight, or train "
        "it alone first with schedule.discriminator_warmup_images",
    ),
    "saturated": _Symptom(
        _accuracy,
        lambda accuracy: accuracy > SATURATED,
        "the discriminator is saturated (accuracy {value:.3f} over the last {images:,} images), so its gradient hardly "
        "depends on the output. Lower schedule.discriminator_learning_rate, set schedule.generator_every_steps to 1, "
        "let it rest while it wins (schedule.discriminator_max_accuracy, such as 0.9), or use --losses.adversarial "
        "relativistic_average",
    ),
    "resting": _Symptom(
        _rest_share,
        lambda share: share > LARGEST_REST_SHARE,
        "the discriminator rested in {value:.0%} of the steps (over the last {images:,} images): even without updates "
        "its accuracy stays above schedule.discriminator_max_accuracy, and the generator trains against one that "
        "hardly changes. Raise losses.adversarial_weight or schedule.generator_learning_rate, or that accuracy",
    ),
    "share": _Symptom(
        _adversarial_share,
        lambda share: share < SMALLEST_SHARE,
        "the adversarial loss makes up {value:.2%} of the generator's gradient (over the last {images:,} images), so "
        "the generator trains almost without a discriminator. Raise losses.adversarial_weight, or lower the others",
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
        self._since: dict[str, int] = {}
        self._warned: set[str] = set()

    def add(self, images_seen: int, values: Mapping[str, float]) -> list[str]:
        """Add a report; return the warnings that are due now."""
        due = []
        for name, symptom in _SYMPTOMS.items():
            value = symptom.value(values)
            if value is None:
                continue
            if not symptom.is_off(value):
                self._since.pop(name, None)
                self._warned.discard(name)
                continue
            images = images_seen - self._since.setdefault(name, self._position)
            if self._after_images and images >= self._after_images and name not in self._warned:
                self._warned.add(name)
                due.append(symptom.text.format(value=value, images=images))
        self._position = images_seen
        return due
