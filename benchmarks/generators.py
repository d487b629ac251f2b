"""How large and how fast are the generators at the sizes of their papers?

For each: parameters, floating-point operations of one image of 64x64 LQ px at x4, and the time of a training step with
it (forward and backward pass). Rows of the table between the two marks of docs/models.md are replaced.

Run:
    python benchmarks/generators.py --output docs/models.md
"""

from __future__ import annotations

import argparse
import platform
import statistics
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from _measure import time_step
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
MARKS = "<!-- generators: begin -->", "<!-- generators: end -->"
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
    """Measure all, or those that are named, and print or insert the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file whose table is replaced; without it the rows are printed")
    parser.add_argument("--only", nargs="*", help="architectures to measure, to be printed; without it all")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.output is not None and arguments.only:
        parser.error("--only with --output: the table has one date and one device, so it is measured whole")
    before, begin, rest = (arguments.output.read_text(encoding="utf-8") if arguments.output else "").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if arguments.output is not None and not (begin and end):
        parser.error(f"{arguments.output} has no {MARKS[0]} and {MARKS[1]} between which the table stands")
    rows = [row_of(name, arguments.repeats) for name in arguments.only or GENERATORS.names]
    text = "\n".join([caption(), "", *HEAD, *rows])
    if arguments.output is None:
        print(text)
    else:
        arguments.output.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


HEAD = (
    "| architecture | sizes, if not the defaults | parameters, M | GFLOPs, 64 px | step, s | precisions | "
    "LQ sides | paper | licence |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def caption() -> str:
    """Say what was measured where."""
    today = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    threads = "" if torch.cuda.is_available() else f", CPU seconds of {torch.get_num_threads()} thread(s)"
    return f"*{device}{threads}, float32, torch {torch.__version__}, {today}; one image, x{SCALE}.*"


def row_of(name: str, repeats: int) -> str:
    """Measure one architecture and return its row."""
    options, paper, licence, sizes = described(name)
    torch.manual_seed(0)
    generator = build_generator(options)
    parameters = sum(parameter.numel() for parameter in generator.parameters()) / 1e6
    smallest, multiple = generator.smallest_side_px, generator.size_multiple_px
    sides = f"multiples of {multiple}" if multiple > 1 else f"{smallest} and more" if smallest > 1 else "any"
    architecture = GENERATORS[name]
    seconds = step_seconds(generator, repeats)
    source = f"[{paper}](https://arxiv.org/abs/{paper})" if paper else "none"
    return (
        f"| `{name}` | {sizes} | {parameters:.2f} | {flops(options) / 1e9:,.0f} | {seconds:.2f} | "
        f"{', '.join(architecture.precisions)} | {sides} | {source} | {licence} |"
    )


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
