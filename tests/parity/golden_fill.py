"""The fill rule of the goldens: every weight and input is a draw from numpy's frozen legacy stream."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"


@cache
def golden_outputs() -> dict[str, Tensor]:
    """Read the reference's outputs by name."""
    with np.load(GOLDEN / "networks.npz") as archive:
        return {name: torch.from_numpy(np.asarray(archive[name])) for name in archive}


def draw(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw standard normal values."""
    return np.random.RandomState(seed).standard_normal(shape)


def draw_image(shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw an image in [0, 1)."""
    return torch.from_numpy(np.random.RandomState(seed).random_sample(shape).astype(np.float32))


def draw_semantics(shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw semantics, which a ReLU has made non-negative."""
    return torch.from_numpy(np.abs(draw(shape, seed)).astype(np.float32))


def fill(network: str) -> dict[str, Tensor]:
    """Fill the reference state dict of a network; the tensors are shared, so do not write to them."""
    return dict(_fill(network))


@cache
def _fill(network: str) -> dict[str, Tensor]:
    # Spectral vectors are the first singular vectors.
    entries = json.loads((GOLDEN / "state_dict_keys.json").read_text(encoding="utf-8"))[network]
    state: dict[str, Tensor] = {}
    for seed, (name, shape, kind) in enumerate(entries):
        if kind != "skip":
            state[name] = torch.from_numpy(_value(tuple(shape), kind, seed).astype(np.float32))
    for name in [name for name in state if name.endswith(".weight_orig")]:
        left, _, right = torch.linalg.svd(state[name].flatten(1), full_matrices=False)
        state[name.replace("_orig", "_u")] = left[:, 0].contiguous()
        state[name.replace("_orig", "_v")] = right[0].contiguous()
    return state


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Return the largest absolute difference over the largest absolute value wanted."""
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


def _value(shape: tuple[int, ...], kind: str, seed: int) -> np.ndarray:
    if kind == "matrix":
        return draw(shape, seed) * np.sqrt(2 / np.prod(shape[1:]))
    return draw(shape, seed) * 0.1 + (1 if kind == "gain" else 0)
