"""How large and how fast are the generators at the sizes of their papers?

For each: parameters, floating-point operations of one image of 64x64 LQ px at x4, and the time of a training step with
it (forward and backward pass). docs/models.md shows the table.

Run:
    python benchmarks/generators.py
    python benchmarks/generators.py --only rrdb swinir --repeats 3
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from _measure import time_step
from _origin import add_json_argument, publish
from _tables import Column, Row, label, row_of, seconds
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.generators import (
    GENERATORS,
    CompactOptions,
    GeneratorName,
    GeneratorOptions,
    RRDBOptions,
    SemanticCompactOptions,
    SpandrelOptions,
    SwinIROptions,
    build_generator,
)
from pipeline.models.generators.spandrel.options import TESTED

SIDE_PX, SCALE = 64, 4
COLUMNS = (
    label("architecture"),
    Column("sizes, if not the defaults"),
    Column("parameters, M", ".2f", "lower"),
    Column("GFLOPs, 64 px", ",.0f", "lower"),
    seconds("step, s"),
    Column("precisions"),
    Column("LQ sides"),
    Column("paper"),
    Column("licence"),
)
NATIVE: dict[str, tuple[GeneratorOptions, str, str]] = {
    "rrdb": (RRDBOptions(scale=SCALE, num_features=64, num_blocks=23), "1809.00219", "64 features, 23 blocks"),
    "swinir": (SwinIROptions(scale=SCALE, num_features=180, num_blocks=6), "2108.10257", "180 features, 6 blocks"),
    "compact": (CompactOptions(scale=SCALE, num_features=64, num_blocks=16), "2107.10833", "64 features, 16 blocks"),
    "semantic_compact": (
        SemanticCompactOptions(scale=SCALE, num_features=64, num_blocks=16, semantics_weights="random"),
        "1804.02815",
        "64 features, 16 blocks",
    ),
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "ATD": {
        "embed_dim": 210, "depths": [6] * 6, "num_heads": [6] * 6, "window_size": 16, "num_tokens": 128,
        "reducted_dim": 20, "mlp_ratio": 2,
    },
    "DAT": {"depth": [6] * 6, "num_heads": [6] * 6, "split_size": [8, 32]},
    "DITN": {},
    "DRCT": {"embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6, "window_size": 16},
    "GRL": {
        "embed_dim": 128, "depths": [4] * 4, "num_heads_window": [2] * 4, "num_heads_stripe": [2] * 4,
        "window_size": 32, "stripe_size": [64, 64], "mlp_ratio": 2, "anchor_window_down_factor": 4,
    },
    "HAT": {
        "embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6, "window_size": 16, "mlp_ratio": 2,
    },
    "MoSR": {},
    "OmniSR": {"res_num": 5},
    "RCAN": {},
    "RGT": {"depth": [6] * 8, "num_heads": [6] * 8, "mlp_ratio": 2, "split_size": [8, 32]},
    "RealPLKSR": {},
    "SAFMN": {"dim": 36},
    "SPAN": {},
}  # fmt: skip


def main() -> None:
    """Measure all, or those that are named, and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="architectures to measure; without it all")
    parser.add_argument("--repeats", type=int, default=3)
    add_json_argument(parser)
    options = parser.parse_args()
    options.device, options.threads = "cuda" if torch.cuda.is_available() else "cpu", 1
    torch.set_num_threads(options.threads)
    rows = [measure(name, options.repeats) for name in options.only or GENERATORS.names]
    publish("generators", COLUMNS, rows, options, libraries=("torch", "spandrel"))


def measure(name: str, repeats: int) -> Row:
    """Measure one architecture and return its row."""
    options, paper, licence, sizes = described(name)
    torch.manual_seed(0)
    generator = build_generator(options)
    parameters = sum(parameter.numel() for parameter in generator.parameters()) / 1e6
    smallest, multiple = generator.smallest_side_px, generator.size_multiple_px
    sides = f"multiples of {multiple}" if multiple > 1 else f"{smallest} and more" if smallest > 1 else "any"
    source = f"[{paper}](https://arxiv.org/abs/{paper})" if paper else "none"
    numbers = (parameters, flops(options) / 1e9, step_seconds(generator, repeats))
    precisions = ", ".join(GENERATORS[name].precisions)
    return row_of(COLUMNS, f"`{name}`", sizes, *numbers, precisions, sides, source, licence)


def described(name: str) -> tuple[GeneratorOptions, str, str, str]:
    """Return options at the published sizes, the paper, the licence of the code, and the sizes as text."""
    if name in NATIVE:
        options, paper, sizes = NATIVE[name]
        return options, paper, "Apache-2.0 (ours)", sizes
    short = name.partition(":")[2]
    values, known = PUBLISHED[short], TESTED[short]
    options = SpandrelOptions(architecture=GeneratorName(name), scale=SCALE, hyperparameters=values)
    sizes = ", ".join(f"`{key}={text_of(value)}`" for key, value in values.items()) or "defaults"
    return options, known.paper, known.licence, sizes


def text_of(value: Any) -> str:
    """Return a hyperparameter as short text."""
    is_repeated = isinstance(value, list) and len(value) > 2 and len(set(value)) == 1
    return f"[{value[0]}] * {len(value)}" if is_repeated else str(value)


def flops(options: GeneratorOptions) -> int:
    """Return the floating-point operations of one image: twice the multiplications."""
    with torch.device("meta"):
        generator = build_generator(options).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(torch.empty(1, 3, SIDE_PX, SIDE_PX, device="meta"))
    return counter.get_total_flops()


def step_seconds(generator: nn.Module, repeats: int) -> float:
    """Return the median time of a forward and backward pass: on a GPU by the clock, else of this process on the CPU."""
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if has_gpu else "cpu")
    generator.to(device)
    lq = torch.rand(1, 3, SIDE_PX, SIDE_PX, device=device)

    def step() -> None:
        generator(lq).square().mean().backward()
        generator.zero_grad(set_to_none=True)

    if has_gpu:
        step()  # the first one waits for kernels to be loaded
    return statistics.median(time_step(step)[0 if has_gpu else 1] for _ in range(repeats))


if __name__ == "__main__":
    main()
