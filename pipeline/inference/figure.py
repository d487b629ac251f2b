"""The plane of perception and distortion: a point per model and set, as PNG or SVG.

References:
    Blau and Michaeli 2018, The perception-distortion tradeoff, arXiv:1711.06077.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.inference.evaluation_report import EvaluationReport
from pipeline.inference.model_names import BICUBIC
from pipeline.metrics import Metric
from pipeline.metrics.bootstrap import CONFIDENCE, Interval
from shards.errors import InputError
from shards.format.files import write_atomically
from shards.format.names import as_text
from shards.format.outputs import head_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")

_HEAD_BYTES = 4096
_SIGNATURE = "sed-trainer evaluate figure"
_MARKERS = "osD^vP*X<>hp"
_BICUBIC_COLOUR = "0.45"


def check_figure(path: Path, metrics: Sequence[Metric]) -> None:
    """Check that a figure can be drawn from some metrics into a file of this name.

    Raises:
        InputError: The ending is of no format, or a kind of metric is missing.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--figure {path} does not end in {' or '.join(FORMATS)}")
    axes_of(metrics)


def axes_of(metrics: Sequence[Metric]) -> tuple[Metric, Metric]:
    """Return the metric of each axis: the first of distortion, and the first perceptual one.

    Raises:
        InputError: One is missing.
    """
    kinds = {metric.kind: metric for metric in reversed(metrics)}
    if missing := [kind for kind in ("distortion", "perceptual") if kind not in kinds]:
        raise InputError(
            f"--figure shows perception against distortion, and --metrics has no {missing[0]} metric that can be "
            f"computed here; got {', '.join(metric.name for metric in metrics)}; add one, such as "
            f"{'psnr_y' if missing[0] == 'distortion' else 'gmsd'}"
        )
    return kinds["distortion"], kinds["perceptual"]


def is_figure(path: Path) -> bool:
    """Return whether a file is a figure that `write_figure` wrote."""
    return _SIGNATURE.encode() in head_of(path, _HEAD_BYTES)


def write_figure(path: Path, report: EvaluationReport) -> None:
    """Draw a report's models on its sets; the folder is created if need be."""
    from matplotlib import style
    from matplotlib.figure import Figure

    form = path.suffix.lower().removeprefix(".")
    drawn = io.BytesIO()
    # Whatever the user's own style is; letters stay letters, and nothing in the file changes from call to call.
    with style.context(["default", {"svg.fonttype": "none", "svg.hashsalt": _SIGNATURE}]):
        figure = Figure(figsize=(7.5, 5), dpi=160, layout="constrained")
        _draw(figure, report)
        metadata = {"Software": _SIGNATURE} if form == "png" else {"Creator": _SIGNATURE, "Date": None}
        figure.savefig(drawn, format=form, metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, drawn.getvalue())


def _draw(figure: Figure, report: EvaluationReport) -> None:
    x, y = axes_of(report.metrics)
    colours = {BICUBIC: _BICUBIC_COLOUR, **{model.label: f"C{at % 10}" for at, model in enumerate(report.models)}}
    markers = {name: _MARKERS[at % len(_MARKERS)] for at, name in enumerate(report.sets)}
    axes = figure.add_subplot()
    for set_name, marker in markers.items():
        for row in report.means(set_name):
            _draw_point(axes, row.intervals[x.name], row.intervals[y.name], colours[row.label], marker)
    axes.set_xlabel(_axis_label(x))
    axes.set_ylabel(_axis_label(y))
    axes.set_title(f"means over images, with {CONFIDENCE:.0%} bootstrap intervals", loc="left", fontsize="small")
    axes.grid(alpha=0.25)
    figure.legend(handles=_legend(colours, markers), loc="outside right upper", frameon=False)


def _draw_point(axes: Axes, x: Interval | None, y: Interval | None, colour: str, marker: str) -> None:
    """Draw one mean with the bars of its intervals; nothing where there is no mean."""
    if x is None or y is None:
        return
    across, along = ([[one.mean - one.low], [one.high - one.mean]] for one in (x, y))
    axes.errorbar(x.mean, y.mean, xerr=across, yerr=along, fmt="none", ecolor=colour, elinewidth=1, alpha=0.4)
    axes.plot(x.mean, y.mean, marker, color=colour, markersize=8, markeredgecolor="white", zorder=3)


def _axis_label(metric: Metric) -> str:
    title = f"{metric.label}, {metric.unit}" if metric.unit else metric.label
    return f"{title}   (better →)" if metric.is_higher_better else f"{title}   (← better)"


def _legend(colours: Mapping[str, str], markers: Mapping[str, str]) -> list[Artist]:
    """Return what colours and markers mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    def marked(label: str, marker: str) -> Line2D:
        return Line2D([], [], color="black", marker=marker, linestyle="none", markersize=8, label=label)

    models = [Patch(color=colour, label=_literal(label)) for label, colour in colours.items()]
    sets = [marked(_literal(name), marker) for name, marker in markers.items()]
    return [*models, marked("", ""), *sets]


def _literal(name: str) -> str:
    """Return a name as matplotlib shows it letter by letter: `$` would begin a formula, and `_` hide it."""
    return as_text(f" {name}" if name.startswith("_") else name).replace("$", r"\$")
