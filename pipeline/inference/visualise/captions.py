"""How to read the pictures, as they say it themselves; docs/visualise.md says more."""

from __future__ import annotations

from pipeline.inference.visualise.features import OWN, PLAIN, SHUFFLED, ZEROS, Purities
from pipeline.inference.visualise.opened import OpenRun
from pipeline.inference.visualise.purity import NUM_NEIGHBOURS
from pipeline.metrics.bootstrap import CONFIDENCE

CONDITIONS = {
    OWN: "with the semantics of the photo",
    ZEROS: "without: zeros for semantics",
    SHUFFLED: "shuffled: semantics of another photo",
    PLAIN: "plain discriminator",
}


def title_of(run: OpenRun, name: str, kind: str) -> str:
    """Return the title of a picture."""
    options = run.config.discriminators[name]
    kind_of = f"{options.architecture}, {'semantic-aware' if options.semantic else 'plain'}"
    return f"{kind}: {name} ({kind_of}) of {run.folder.path.resolve().name}"


def decisions_text(run: OpenRun, name: str) -> str:
    """Return how to read a picture of decisions."""
    network, loss = run.discriminators[name], run.config.losses.adversarial
    where = (
        f"One logit per {network.logit_stride_px} px, at its place"
        if network.logit_stride_px
        else "One number per crop, the mean of its logits"
    )
    what = (
        "its sigmoid is the probability that the place is real"
        if loss == "vanilla"
        else f"its sigmoid orders the places; under the loss {loss} it is no probability"
    )
    semantics = " HR and SR are both seen with the semantics of HR, as in training." if run.is_semantic(name) else ""
    return (
        f"{where}; {what}. The photo passes in crops of {run.crop_px} px, as in training, whose borders may show. All "
        f"maps have one scale of colours.{semantics} A discriminator that tells both apart is purple (real) on HR and "
        "orange (fake) on SR."
    )


def features_text(run: OpenRun, name: str, found: Purities, num_classes: int, permuted: float, seed: int) -> str:
    """Return how to read a picture of features."""
    layer = run.discriminators[name].features_layer
    extractor = "" if run.extractor is None else run.extractor.name
    own = run.is_semantic(name)
    circle = (
        " The discriminator is given the map that the classes are from: purity that falls without it shows that its "
        "semantics reach these features, not that they help."
        if own
        else " The discriminator is not given this map."
    )
    return (
        f"Points: cells of 16 px of HR, by t-SNE of the discriminator's features: the input of {layer}"
        f"{', behind the last fusion block' if own else ''}. Nobody labelled them: the classes are {num_classes} "
        f"clusters (k-means, seed {seed}) of the map of {extractor}. Purity: fraction of a cell's {NUM_NEIGHBOURS} "
        f"nearest neighbours in other crops that have its class, mean over photos [{CONFIDENCE:.0%} interval]. "
        f"Permuted classes have {permuted:.3f}, that map itself {found.ceiling:.3f}.{circle}"
    )


def attention_text(run: OpenRun, *, is_chosen: bool) -> str:
    """Return how to read a picture of attention."""
    rule = (
        "the points that were chosen"
        if is_chosen
        else "the two cells of one crop whose semantics are least alike, of the middle crops of all photos"
    )
    extractor = "" if run.extractor is None else run.extractor.name
    return (
        f"The cross-attention weights of the first fusion block for {rule}: which positions of the image features the "
        f"marked cell reads. Colours run from its smallest weight to its largest. Where the strongest 10% of the "
        f"positions hold little more than 10%, the block reads all alike, and colours show differences of no weight. "
        f"Semantics: {extractor}."
    )
