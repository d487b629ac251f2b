"""Registers a model as a new version; it becomes the champion if a paired bootstrap over images proves it better.

Better means by a perceptual metric, with a floor on a distortion metric: PSNR alone favours a generator trained without
a discriminator. Both models are evaluated on the same images in this call.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.evaluation import check_images, digest_of_sets, set_images
from pipeline.inference.device import best_device
from pipeline.inference.evaluate import DEFAULT_METRICS, measure_set, protocol_of, result_names
from pipeline.inference.model_card import Measured
from pipeline.inference.named_model import NamedModel, open_model
from pipeline.inference.registration import register_version
from pipeline.inference.tracked_run import find_run_id
from pipeline.metrics import Metric
from pipeline.metrics.choice import best_perceptual, find_metric
from pipeline.metrics.comparison import Comparison, compare
from pipeline.metrics.order import mean, only_finite
from pipeline.models.generators import GENERATORS
from pipeline.progress import Progress, say
from pipeline.tracking import registry
from pipeline.weights.files import hash_weights
from shards.errors import InputError
from shards.format.files import sha256_of
from shards.schema import SchemaError, parse, parse_json

Results = dict[str, list[float]]
"""Values of each metric, image by image, set by set."""


@dataclass(frozen=True)
class Rule:
    """The condition on which a challenger becomes the champion.

    Attributes:
        metric: The challenger must be proven better by this one.
        floor: By this one it must be no worse than `largest_loss` on average.
        largest_loss: Mean difference to the champion; below 0 where higher is better.
    """

    metric: Metric
    floor: Metric
    largest_loss: float

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All metrics of a version, each once."""
        return tuple({metric.name: metric for metric in (self.metric, self.floor, *DEFAULT_METRICS)}.values())

    @property
    def text(self) -> str:
        """The rule in one phrase."""
        return f"{self.metric.name} proven better, {self.floor.name} at most {self.largest_loss:+g} from the champion's"


def parse_rule(metric: str, floor: str) -> Rule:
    """Return the rule that a user names.

    Args:
        metric: Name of the metric that decides; empty: the best perceptual one that can be computed here.
        floor: `psnr_y=-0.5`: a metric and the largest mean difference for the worse.

    Raises:
        InputError: A metric is unknown, cannot be computed here, or the floor is not such a pair.
    """
    name, _, loss = floor.rpartition("=")
    decisive, lower = find_metric(metric) if metric else best_perceptual(), find_metric(name or "psnr_y")
    try:
        largest_loss = float(loss)
    except ValueError:
        largest_loss = math.nan
    is_gain = largest_loss > 0 if lower.is_higher_better else largest_loss < 0
    if not name or is_gain or not math.isfinite(largest_loss):
        raise InputError(
            f"--floor {floor!r} is not NAME=LARGEST_LOSS, such as psnr_y=-0.5; where lower is better a loss is above 0"
        )
    for one in (decisive, lower):
        if needs := one.missing():
            raise InputError(f"{one.name} cannot decide: not computed: needs {needs}; `--metric help` lists all")
    return Rule(decisive, lower, largest_loss)


def promote(source: str, name: str, sets: Sequence[Path], rule: Rule, *, force: bool = False) -> str:
    """Register a model, and make it the champion if it is proven better than the present one, or the first of its name.

    Args:
        source: The model as a user names it; see `open_model`.
        name: Registered model.
        sets: Evaluation sets that decide.
        rule: The condition on which it becomes the champion.
        force: Make it the champion whatever the comparison, sets and floor say; recorded in its tags.

    Returns:
        The outcome, as text.

    Raises:
        CheckpointError: A model cannot be loaded, or the MLflow server is unreachable.
        InputError: It cannot be compared with the champion, or is below bicubic upscaling; nothing is registered.
    """
    if not sets:
        raise InputError("--sets names no evaluation set, and nothing can be compared without one; give a folder")
    model = open_model(source)
    _check_scale(model.scale, registry.registered_scale(name), name)
    registry.clear(name, _run_id(model))
    champion = registry.champion(name)
    digest = sha256_of(model.weights)
    if champion is not None and champion.tags.get("weights_sha256") == digest:
        return f"{name} version {champion.version} is this model, and already the champion; nothing to do"
    if champion is not None and not force:
        _check_sets(sets, champion)
    for line in check_images(sets, model.scale, rule.metrics):
        say(line)
    ours = measure(model, sets, "measuring the model", rule.metrics)
    if not force:
        _check_above_bicubic(rule.floor, ours)
    facts = {
        "weights_sha256": digest,
        "source": source,
        "architecture": GENERATORS.of(model.generator).name,
        "scale": str(model.scale),
        registry.EVALUATION: digest_of_sets(sets, model.scale),
        "evaluation_sets": ", ".join(str(folder) for folder in sets),
        "set_names": json.dumps([folder.name for folder in sets]),
        "num_images": str(len(ours[rule.metric.name])),
        "protocol": protocol_of((rule.metric, rule.floor)),
        "rule": rule.text,
    }
    # Evaluation takes minutes, so it is outside the lock; if the champion changes meanwhile, it is compared again.
    while True:
        champion = registry.champion(name)
        decision = _decide(model, ours, name, champion, sets, rule, force=force)
        if decision is None:
            version = "" if champion is None else champion.version
            return f"{name} version {version} has the same weights, and is already the champion; nothing to do"
        with registry.exclusive(name):
            if registry.champion(name) == champion:
                measured = Measured(
                    rule.metrics,
                    only_finite({key: mean(values) for key, values in ours.items()}),
                    sets,
                    int(facts["num_images"]),
                    rule.text,
                    decision.text,
                )
                version = register_version(model, name, measured, facts | decision.tags, _run_id(model))
                (registry.name_champion if decision.wins else registry.name_challenger)(name, version)
                best = registry.name_best(name, version, {one.name: one.is_higher_better for one in rule.metrics})
                return f"{name} version {version} {decision.text}{_best_by(version, best)}"


def _best_by(version: str, best: Mapping[str, str]) -> str:
    metrics = [metric for metric, holder in best.items() if holder == version]
    return f"\n  best version by {', '.join(metrics)}" if metrics else ""


@dataclass(frozen=True)
class Decision:
    """The outcome of a challenge.

    Attributes:
        wins: Whether the model becomes the champion.
        text: What follows "NAME version N".
        tags: Of the version.
    """

    wins: bool
    text: str
    tags: dict[str, str]


def _decide(
    model: NamedModel,
    ours: Results,
    name: str,
    champion: registry.Champion | None,
    sets: Sequence[Path],
    rule: Rule,
    *,
    force: bool,
) -> Decision | None:
    """Return the outcome against the present champion; None if it is the same model."""
    own = f"{rule.metric.label} {rule.metric.text(mean(ours[rule.metric.name]))}"
    if force:
        return Decision(True, f"is champion by --force, without a comparison: {own}", {"verdict": "forced"})
    if champion is None:
        return Decision(True, f"is champion, the first of its name: {own}", {"verdict": "first"})
    rival = open_model(f"{registry.SCHEME}{name}@{registry.CHAMPION}")
    _check_scale(model.scale, rival.scale, name)
    if hash_weights(rival.generator.state_dict()) == hash_weights(model.generator.cpu().state_dict()):
        return None
    theirs = measure(rival, sets, f"measuring the champion, version {champion.version}", rule.metrics)
    return decide(rule, ours, theirs, champion.version)


def decide(rule: Rule, ours: Results, theirs: Results, version: str) -> Decision:
    """Decide between a challenger and the champion.

    Args:
        rule: The condition on which it becomes the champion.
        ours: The challenger's values.
        theirs: The champion's, of the same images.
        version: The champion's version.
    """
    decisive, floor = (compare(metric, ours[metric.name], theirs[metric.name]) for metric in (rule.metric, rule.floor))
    wins = decisive.is_better and floor.holds(rule.largest_loss)
    reason = _reason(rule, decisive, wins=wins)
    text = (
        f"is champion: it {reason} than version {version}"
        if wins
        else f"is challenger, and version {version} stays champion: the new one {reason}"
    )
    text += f"\n  {decisive.text}\n  {floor.text}"
    tags = {"verdict": "champion" if wins else "challenger", "reason": reason, "compared_with": version}
    return Decision(wins, text, tags | _differences(decisive) | _differences(floor))


def _reason(rule: Rule, decisive: Comparison, *, wins: bool) -> str:
    interval = decisive.interval
    if wins:
        return "is proven better"
    if decisive.is_better:
        return f"is better, but below the floor {rule.floor.name}={rule.largest_loss:+g}"
    if decisive.is_worse:
        return "is worse"
    return "ties with it" if interval is not None and interval.low == interval.high == 0 else "is not proven better"


def _differences(comparison: Comparison) -> dict[str, str]:
    interval, name = comparison.interval, comparison.metric.name
    if interval is None:
        return {f"difference_{name}": "none"}
    mean_text, low, high = (f"{value:+.6g}" for value in (interval.mean, interval.low, interval.high))
    return {f"difference_{name}": f"{mean_text} [{low}, {high}]", f"compared_images_{name}": str(interval.num_images)}


def _check_scale(scale: int, registered: int | None, name: str) -> None:
    if registered is not None and scale != registered:
        raise InputError(
            f"{name} holds models for x{registered}, and this one is for x{scale}; register it under another --name"
        )


def _check_sets(sets: Sequence[Path], champion: registry.Champion) -> None:
    theirs = _set_names(champion)
    ours = {folder.name for folder in sets}
    if theirs and ours != theirs:
        raise InputError(
            f"the champion, version {champion.version}, was measured on {', '.join(sorted(theirs))}, and --sets names "
            f"{', '.join(sorted(ours))}; results on different sets cannot be compared. Give the same sets, or make it "
            "the champion regardless with --force"
        )


def _set_names(champion: registry.Champion) -> set[str]:
    names = champion.tags.get("set_names")
    if not names:  # versions registered before this tag existed name the folders only
        return {Path(path).name for path in champion.tags.get("evaluation_sets", "").split(", ") if path}
    try:
        return set(parse(parse_json(names), tuple[str, ...], "set_names"))
    except SchemaError as error:
        raise InputError(
            f"the tag set_names of the champion, version {champion.version}, is no list of names: {error}\n"
            "  correct it in MLflow, or make the model the champion regardless with --force"
        ) from error


def _check_above_bicubic(floor: Metric, ours: Results) -> None:
    """Refuse a model that is worse than bicubic upscaling, by means over the images where both are finite."""
    against = compare(floor, ours[floor.name], ours[f"bicubic_{floor.name}"])
    if not against.holds(0.0):
        own, bicubic = (floor.text(mean(ours[key])) for key in (floor.name, f"bicubic_{floor.name}"))
        raise InputError(
            f"the model is below bicubic upscaling: {floor.label} {own}, bicubic {bicubic}; nothing was registered. Is "
            "it for this scale, and trained to the end? --floor takes another metric, and --force promotes it anyway"
        )


def measure(model: NamedModel, sets: Sequence[Path], description: str, metrics: Sequence[Metric]) -> Results:
    """Return the values of every metric, of the model and of bicubic upscaling."""
    results: Results = {name: [] for name in result_names(metrics)}
    num_images = sum(len(set_images(folder, model.scale)) for folder in sets)
    model.generator.to(best_device())
    with Progress(description, num_images, "images") as progress:
        for folder in sets:
            found = measure_set([model.generator], folder, model.scale, metrics, advance=progress.advance)
            for name, values in results.items():
                values += found.of(name)
    return results


def _run_id(model: NamedModel) -> str | None:
    return None if model.run is None else find_run_id(model.run)
