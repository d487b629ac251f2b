"""Metrics as users name them: `psnr_y`, or `NAME:ARGUMENT` for one that takes an argument, such as a path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pipeline.errors import ConfigError
from pipeline.metrics import METRICS
from pipeline.metrics.metric import Metric
from shards.errors import InputError

# Fixed, so that machines with the same weights choose alike: learned ones first, in the order that papers report them.
_PERCEPTUAL_FIRST = ("lpips", "dists", "lpips-vgg", "features-efficientnet", "haarpsi", "gmsd")


def find_metric(text: str) -> Metric:
    """Return the metric that a user names.

    Raises:
        InputError: The name is unknown, or its argument cannot be used.
    """
    name, colon, argument = text.partition(":")
    metric = METRICS[name]
    if not colon:
        return metric
    if metric.configure is None:
        raise ConfigError(f"metric {text!r}: {name} takes no argument; write {name}")
    return metric.configure(argument)


def choose_metrics(
    names: Sequence[str], any_rank_of_each: Callable[[list[bool]], list[bool]] = lambda flags: flags
) -> tuple[list[Metric], dict[str, str]]:
    """Return the metrics that can be computed here, and what each of the others needs.

    Args:
        names: As users name them.
        any_rank_of_each: Whether each flag is true on any rank.

    Raises:
        InputError: A name is unknown, or none of the metrics can be computed.
    """
    chosen = {metric.name: metric for metric in map(find_metric, names)}
    needs = {name: metric.missing() for name, metric in chosen.items()}
    not_computed = missing_anywhere(needs, any_rank_of_each)
    metrics = [metric for name, metric in chosen.items() if name not in not_computed]
    if not metrics:
        listed = "".join(f"\n  {name}: not computed: needs {what}" for name, what in not_computed.items())
        raise InputError(f"--metrics leaves nothing to compute; `--metrics help` lists all{listed}")
    return metrics, not_computed


def missing_anywhere(
    needs: Mapping[str, str | None], any_rank_of_each: Callable[[list[bool]], list[bool]]
) -> dict[str, str]:
    """Return what is missing for metrics that some rank cannot compute, the same metrics on every rank.

    Args:
        needs: What is missing on this rank, by metric; None where nothing is.
        any_rank_of_each: Whether each flag is true on any rank.
    """
    anywhere = any_rank_of_each([need is not None for need in needs.values()])
    return {
        name: need or "the same on the other machines of this run"
        for (name, need), is_missing in zip(needs.items(), anywhere, strict=True)
        if is_missing
    }


def best_perceptual() -> Metric:
    """Return the perceptual metric to decide by: the first of a fixed order that can be computed here."""
    return next(metric for metric in map(METRICS.__getitem__, _PERCEPTUAL_FIRST) if metric.missing() is None)


def describe_metrics() -> str:
    """Return a line per metric: kind, reference, direction, protocol, weights, and what is missing for it."""
    return "\n".join(map(_described, METRICS))


def _described(metric: Metric) -> str:
    reference = "full-reference" if metric.needs_reference else "no-reference"
    missing = metric.missing()
    weights = f"; weights: {metric.weights}" if metric.weights else ""
    needs = "" if missing is None else f"; not computed: needs {missing}"
    return f"{metric.name}: {metric.kind}, {reference}, {metric.direction}; {metric.protocol}{weights}{needs}"
