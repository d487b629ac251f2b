"""What bounds a training step on a GPU: arithmetic and memory traffic of every preset, at the device's own rates.

The trainer's step runs on the meta device, where torch counts the arithmetic of each operator; it reads each input and
writes each output once, at two bytes per value in bf16 and four in float32. An operator then takes the longer of its
arithmetic at the matrix rate and its traffic at the copy rate; a step the sum, with Adam and the moving average.
Kernels that fuse operators may take less than their traffic, never less than the arithmetic alone. Rates and
measured steps are those of one H100 in docs/benchmarks.md; a CPU computes the rest in seconds.

Run:
    python benchmarks/bound.py
    python benchmarks/bound.py --presets rrdb_sed_p_x4 --batch 32
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from _origin import add_json_argument, publish
from _tables import Column, Row, label, ratio, row_of, seconds
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from jobs.command_line import PRESETS
from pipeline.config.schema import Preset, TrainConfig
from pipeline.models.discriminators import unet
from pipeline.models.ops.upsampled_convolution import upsampled_convolution_plain
from pipeline.run.cost import hollow_gan, hollow_images, hollow_semantics
from pipeline.run.hollow import num_parameters
from pipeline.train.gan_step import Gan, Turn, gan_step, gan_step_shared_pass
from pipeline.train.micro_batches import StepInput

MATRIX_FLOPS = {"bf16": 791e12, "float32": 410e12}
"""FLOP/s of one H100 80GB HBM3 by precision (docs/benchmarks.md, On a GPU); float32 convolutions run in TF32."""
COPY_BYTES = 3.0e12
"""Bytes/s of a copy there, read and written."""
VALUE_BYTES = {"bf16": 2, "float32": 4}
MEASURED_BATCH = 8
MEASURED_MS = {"rrdb_sed_p_x4": 56.7, "rrdb_sed_u_x4": 91.1}
"""The fastest measured step there in bf16 with separate passes, semantics given: of P+SeD compiled, both in a graph."""
ADAM_BYTES, AVERAGE_BYTES = 7 * 4, 3 * 4
"""Per weight: Adam reads it, its gradient and two moments, and writes three; the average reads two and writes one."""
OVERWRITING = {"aten::copy_", "aten::fill_", "aten::zero_"}
"""Operators that do not read what they change."""
COLUMNS = (
    label("preset"),
    label("precision"),
    label("batch"),
    Column("TFLOP per step", ".3g", "lower", is_compared=True, noise=0.0),
    Column("GB per step", ".3g", "lower", is_compared=True, noise=0.0),
    ratio("TFLOP of the extractor beside it", "lower", ".3g"),
    seconds("arithmetic alone, ms", ".3g"),
    seconds("predicted, ms", ".3g"),
    seconds("measured, ms", ".1f"),
    Column("measured speed, of predicted", ".0%", "higher"),
    Column("of matrix rate", ".0%", "higher"),
)


@dataclass(frozen=True)
class Operator:
    """What one operator does: floating-point operations, and values read and written."""

    flops: int
    values: int


class Operators(TorchDispatchMode):
    """Collects the operators that are run, without views and allocations, which move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Operator] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operator and note it."""
        out = func(*args, **(kwargs or {}))
        if not (func.is_view or func._schema.name.startswith(("aten::empty", "aten::new_empty", "aten::detach"))):
            count = flop_registry.get(func._overloadpacket)
            flops = 0 if count is None else count(*args, **(kwargs or {}), out_val=out)
            read = sum(_sizes(args[1:] if func._schema.name in OVERWRITING else (args, kwargs)))
            self.found.append(Operator(flops, read + sum(_sizes(out))))
        return out


def _sizes(arguments: object) -> Iterator[int]:
    for leaf in tree_leaves(arguments):
        if isinstance(leaf, Tensor):
            # Of an expanded tensor only what is stored.
            yield min(leaf.numel(), leaf.untyped_storage().nbytes() // leaf.element_size())


def main() -> None:
    """Count and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=PRESETS.names(), default=PRESETS.names())
    parser.add_argument("--batch", type=int, default=MEASURED_BATCH, help="images of the step")
    add_json_argument(parser)
    options = parser.parse_args()
    # The one that a GPU runs, with more arithmetic in fewer kernels.
    unet.upsampled_convolution = upsampled_convolution_plain
    rows = [row_of_preset(name, options.batch) for name in options.presets]
    publish("bound", COLUMNS, rows, options)


def row_of_preset(name: str, batch: int) -> Row:
    """Count the steps of a preset."""
    config = PRESETS.load(name, Preset).train
    precision, gan = config.runtime.precision, hollow_gan(config)
    step, extractor = count_step(config, gan, batch)
    value_bytes, rate = VALUE_BYTES[precision], MATRIX_FLOPS[precision]
    flops = sum(operator.flops for operator in step)
    optimizer = optimizer_bytes(gan)
    traffic = sum(operator.values for operator in step) * value_bytes + optimizer
    predicted_s = optimizer / COPY_BYTES + sum(
        max(operator.flops / rate, operator.values * value_bytes / COPY_BYTES) for operator in step
    )
    extractor_flops = sum(operator.flops for operator in extractor)
    cells: list[float | str] = [
        flops / 1e12,
        traffic / 1e9,
        extractor_flops / 1e12,
        1e3 * flops / rate,
        1e3 * predicted_s,
    ]
    measured_ms = MEASURED_MS.get(name) if batch == MEASURED_BATCH else None
    if measured_ms is None:
        return row_of(COLUMNS, name, precision, batch, *cells, "not measured", None, None)
    shares = (1e3 * predicted_s / measured_ms, 1e3 * flops / rate / measured_ms)
    targets = {"of matrix rate": 0.5}
    return row_of(COLUMNS, name, precision, batch, *cells, measured_ms, *shares, targets=targets)


def count_step(config: TrainConfig, gan: Gan, batch: int) -> tuple[list[Operator], list[Operator]]:
    """Return the operators of a step that is given its semantics, and those of the extractor."""
    lq, gt = hollow_images(config, batch)
    run = gan_step_shared_pass if config.runtime.discriminator_pass == "shared" else gan_step
    is_adversarial = bool(gan.adversaries)
    with torch.device("meta"):
        with Operators() as extracting:
            semantics = hollow_semantics(config, gt)
        with Operators() as stepping:
            run(gan, StepInput(lq, gt, gt, semantics), Turn(1.0, 1.0 if is_adversarial else None))
    return stepping.found, extracting.found


def optimizer_bytes(gan: Gan) -> int:
    """Return what the optimizers and the moving average read and write."""
    of_generator = num_parameters(gan.generator.bare)
    trained: Iterable[int] = (of_generator, *(num_parameters(one.bare) for one in gan.adversaries))
    return ADAM_BYTES * sum(trained) + AVERAGE_BYTES * of_generator


if __name__ == "__main__":
    main()
