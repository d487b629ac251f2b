"""What the validations of a run are ranked by: one metric, as the mean over all sets or on one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.metrics.metric import Metric


@dataclass(frozen=True)
class Criterion:
    """A metric of the validations.

    Attributes:
        name: As results name it: `lpips` for the mean over the sets, `Set5/lpips` for one set.
        metric: Knows the direction.
    """

    name: str
    metric: Metric

    def scores(self, values: Mapping[int, float]) -> dict[int, float]:
        """Return values by position so that higher is better."""
        sign = 1.0 if self.metric.is_higher_better else -1.0
        return {position: sign * value for position, value in values.items()}


def best_position(scores: Mapping[int, float]) -> int | None:
    """Return the position with the highest score, the earliest of equals; None without a score."""
    return max(sorted(scores), key=scores.__getitem__) if scores else None


def find_criterion(text: str, set_names: Sequence[str], metrics: Mapping[str, Metric]) -> Criterion:
    """Return the criterion that a user names.

    Args:
        text: `METRIC` or `SET/METRIC`.
        set_names: The evaluation sets.
        metrics: The metrics of the validation, by the names under which they were chosen; their own name does too.

    Raises:
        ConfigError: It is none of these; lists them.
    """
    known = {
        f"{place}{name}": Criterion(f"{place}{metric.name}", metric)
        for place in ("", *(f"{folder}/" for folder in set_names))
        for chosen, metric in metrics.items()
        for name in dict.fromkeys((chosen, metric.name))
    }
    if text not in known:
        raise ConfigError(
            f"report.keep_best={text!r} is no metric of the validation: {', '.join(known)}; report.metrics chooses them"
        )
    return known[text]
