"""Fast operators: the same value and gradient as their plain twins, in any layout, precision and compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from pipeline.models.ops.dense_convolutions import dense_convolutions, dense_convolutions_plain
from pipeline.models.ops.upsampled_convolution import upsampled_convolution, upsampled_convolution_plain

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@dataclass
class Case:
    """Both ways of an operator, and what gets a gradient."""

    fast: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    parameters: tuple[Tensor, ...] = ()

    def run(self, way: Callable[..., Tensor]) -> list[Tensor]:
        out = way(*self.inputs)
        cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
        return [out, *torch.autograd.grad(out, [*self.inputs, *self.parameters], cotangent)]


def draw(*shape: int, dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    return torch.randn(shape, dtype=dtype).contiguous(memory_format=memory_format).requires_grad_()


def dense(*shape: int, **options) -> Case:
    layers = nn.ModuleList(nn.Conv2d(6 + 4 * index, 4 if index < 4 else 6, 3, padding=1) for index in range(5))
    layers.to(options["dtype"]).to(memory_format=options["memory_format"])
    ways = (
        functools.partial(way, convolutions=layers, slope=0.2) for way in (dense_convolutions, dense_convolutions_plain)
    )
    return Case(*ways, (draw(*shape, **options),), tuple(layers.parameters()))


def upsampled(*shape: int, **options) -> Case:
    weight = draw(4, shape[1], 3, 3, **options)
    return Case(upsampled_convolution, upsampled_convolution_plain, (draw(*shape, **options), weight))


CASES = [
    (dense, (2, 6, 5, 7)),
    (dense, (1, 6, 1, 1)),
    *((upsampled, (2, 3, *size_px)) for size_px in [(1, 1), (1, 3), (2, 2), (5, 4)]),
    (upsampled, (1, 1, 6, 5)),
]


@pytest.mark.parametrize(("build", "shape"), CASES)
@pytest.mark.parametrize("memory_format", LAYOUTS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_fast_operator_equals_its_plain_twin_in_value_and_gradient(build, shape, memory_format, dtype, tolerance):
    torch.manual_seed(0)
    case = build(*shape, dtype=dtype, memory_format=memory_format)
    for got, wanted in zip(case.run(case.fast), case.run(case.plain), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("build", "shape"), [(dense, (2, 6, 5, 7)), (upsampled, (2, 3, 5, 4))])
def test_fast_operator_is_one_graph_for_the_compiler_forward_and_backward(build, shape):
    torch.manual_seed(0)
    case = build(*shape, dtype=torch.float32, memory_format=torch.channels_last)
    compiled = torch.compile(case.fast, backend="aot_eager", fullgraph=True)
    for got, wanted in zip(case.run(compiled), case.run(case.fast), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize(("build", "shape"), [(dense, (2, 6, 5, 7)), (upsampled, (2, 3, 5, 4))])
def test_fast_operator_under_autocast_has_the_dtypes_of_its_plain_twin(build, shape):
    torch.manual_seed(0)
    case = build(*shape, dtype=torch.float32, memory_format=torch.contiguous_format)
    with torch.autocast("cpu", torch.bfloat16):
        results = [case.run(way) for way in (case.fast, case.plain)]
    for got, wanted in zip(*results, strict=True):
        assert got.dtype == wanted.dtype
        torch.testing.assert_close(got, wanted, rtol=0.05, atol=0.05 * wanted.abs().max().item())


@pytest.mark.parametrize("memory_format", LAYOUTS)
def test_dense_convolutions_give_the_bits_of_their_plain_twin(memory_format):
    torch.manual_seed(0)
    case = dense(2, 6, 5, 7, dtype=torch.float32, memory_format=memory_format)
    assert torch.equal(case.fast(*case.inputs), case.plain(*case.inputs))


def kept_bytes(way: Callable[..., Tensor], case: Case) -> int:
    """What autograd keeps for the backward pass beside the parameters."""
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = way(*case.inputs)
    total = sum(size for pointer, size in kept.items() if pointer not in {p.data_ptr() for p in case.parameters})
    del held
    return total


def test_dense_convolutions_keep_each_map_once_for_the_backward_pass():
    case = dense(2, 6, 8, 8, dtype=torch.float32, memory_format=torch.contiguous_format)
    bytes_per_channel = 2 * 8 * 8 * 4
    assert kept_bytes(case.fast, case) == (6 + 4 * 4) * bytes_per_channel
    assert kept_bytes(case.plain, case) > 2 * kept_bytes(case.fast, case)
