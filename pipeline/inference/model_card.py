"""The model card of a registered version: the network, its results, training, data, licences and use."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.inference.lineage import Lineage
from pipeline.inference.serving import COLUMN
from pipeline.metrics import Metric
from pipeline.models.generators import GENERATORS, Generator
from pipeline.tracking.markdown import as_code, as_markdown
from pipeline.tracking.registry import Place

PICTURE = "comparison.png"


@dataclass(frozen=True)
class Measured:
    """How good a version is.

    Attributes:
        metrics: Measured on all images of the sets.
        means: By metric, and by `bicubic_METRIC`; none where a mean is not finite.
        sets: The evaluation sets.
        num_images: Of all sets.
        rule: The condition on which a version becomes the champion.
        outcome: Of the comparison, as text that follows "NAME version N".
    """

    metrics: Sequence[Metric]
    means: Mapping[str, float]
    sets: Sequence[Path]
    num_images: int
    rule: str
    outcome: str


@dataclass(frozen=True)
class Described:
    """What a card is about.

    Attributes:
        generator: The network.
        source: The model as the user named it.
        weights_sha256: Of the file that was promoted.
        lineage: Where it comes from.
        measured: How good it is.
    """

    generator: Generator
    source: str
    weights_sha256: str
    lineage: Lineage
    measured: Measured


def model_card(place: Place, described: Described) -> str:
    """Return the card of a version, in Markdown; names, paths and metadata in it are shown, never read as Markdown."""
    sections = (
        [f"# {as_markdown(place.name)} version {place.version}", _outcome(place, described.measured)],
        ["## Model", *_list(_model_facts(described))],
        ["## Results", *_results(described.measured)],
        ["## Training", *_list(_training_facts(place, described))],
        ["## Data", *_list(_data_facts(described.lineage))],
        ["## Licences", *_list(_licences(described.lineage))],
        ["## Use", *_use(f"models:/{place.name}/{place.version}", described.generator.scale)],
    )
    return "\n\n".join("\n".join(lines) for lines in sections) + "\n"


def _list(facts: Mapping[str, str]) -> Iterator[str]:
    yield from (f"* {name}: {value}" for name, value in facts.items())


def _outcome(place: Place, measured: Measured) -> str:
    outcome = "\n".join(f"{line.strip()}  " for line in measured.outcome.splitlines())
    return f"Version {place.version} {outcome}".rstrip()


def _model_facts(described: Described) -> dict[str, str]:
    generator = described.generator
    parameters = sum(parameter.numel() for parameter in generator.parameters())
    return {
        "architecture": f"{GENERATORS.of(generator).name}, {parameters:,} parameters",
        "scale": f"x{generator.scale}",
        "source": as_code(described.source),
        "SHA-256 of the weights": as_code(described.weights_sha256),
    }


def _results(measured: Measured) -> Iterator[str]:
    sets = ", ".join(as_markdown(folder.name) for folder in measured.sets)
    yield f"Means over {measured.num_images} images of {sets}; `{PICTURE}` shows the first one.\n"
    yield "| metric | this version | bicubic | better | protocol |"
    yield "| --- | --- | --- | --- | --- |"
    for metric in measured.metrics:
        own, bicubic = (metric.text(measured.means.get(name)) for name in (metric.name, f"bicubic_{metric.name}"))
        better = "higher" if metric.is_higher_better else "lower"
        yield f"| {metric.label} | {own} | {bicubic} | {better} | {metric.protocol} |"
    yield f"\nA version becomes the champion by this rule: {measured.rule}."


def _training_facts(place: Place, described: Described) -> dict[str, str]:
    lineage = described.lineage
    facts = {"MLflow run": f"[{as_markdown(place.run_id)}]({place.run_link})"}
    if lineage.images_seen:
        facts["images seen"] = as_markdown(lineage.images_seen)
    config = lineage.config
    if config is None:
        return facts | {"settings": "not recorded; the model was given as a file"}
    losses = config.losses
    facts |= {
        "settings": f"`config.json` of {as_code(str(config.run_dir))}, usable as a preset",
        "seed": str(config.seed),
        "batch size": f"{config.data.batch_size}, HR crops of {config.data.crop_px} px",
        "losses": f"{losses.pixel} x {losses.pixel_weight:g}",
    }
    if config.uses_perceptual_network:
        facts["losses"] += f", perceptual ({losses.perceptual}) x {losses.perceptual_weight:g}"
    if config.is_adversarial:
        facts["losses"] += f", adversarial ({losses.adversarial}) x {losses.adversarial_weight:g}"
        networks = (
            f"{one.architecture}{', semantic-aware' if one.semantic else ''}" for one in config.discriminators.values()
        )
        facts["discriminator"] = "; ".join(networks)
    if config.uses_semantics:
        facts["semantics"] = as_markdown(f"{config.semantics.architecture}, layer {config.semantics.layer}")
    return facts


def _data_facts(lineage: Lineage) -> dict[str, str]:
    facts = {"digest": as_code(lineage.dataset_digest) if lineage.dataset_digest else "not recorded"}
    if lineage.datasets:
        facts["datasets"] = "; ".join(map(as_markdown, lineage.data_lines or lineage.datasets))
    for name, settings in lineage.sharding.items():
        # A recipe of one's own is a page of numbers; the version's tag `sharding` has it.
        shown = {key: value for key, value in settings.items() if key != "recipe_table"}
        facts[f"sharding of {as_markdown(name)}"] = as_code(json.dumps(shown, sort_keys=True))
    return facts


def _licences(lineage: Lineage) -> dict[str, str]:
    named = {as_markdown(of): as_markdown(licence) for of, licence in lineage.licences.items()} or {
        "frozen weights used in training": "none recorded"
    }
    return named | {"these weights, and the training photos": "not recorded; their owner's"}


def _use(uri: str, scale: int) -> Iterator[str]:
    yield f"""```python
import mlflow

model = mlflow.pyfunc.load_model({json.dumps(uri, ensure_ascii=False)})
sr = model.predict(lq)  # n x height x width x 3, uint8 or float32 in [0, 1]; x{scale} larger, of the same type
```

```sh
mlflow models serve --model-uri {shlex.quote(uri)} --port 5001 --env-manager local
printf '{{"inputs": {{"{COLUMN}": ["%s"]}}}}' "$(base64 -w0 photo.png)" |
  curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' --data @- |
  jq -r '.predictions[0].{COLUMN}' | base64 -d > photo_x{scale}.png
```

`params={{"tile_px": 256}}` in Python, or `"params": {{"tile_px": 256}}` in the request, needs less memory than the
default of 512."""
