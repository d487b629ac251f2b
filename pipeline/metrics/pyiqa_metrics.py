"""No-reference metrics of pyiqa, an optional extra: CLIP-IQA, MUSIQ and MANIQA, as the papers report them."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from numpy import ndarray

from pipeline.metrics.metric import Metric
from pipeline.metrics.tensors import full_precision, metric_device, to_tensor

_PAGE = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights"


@functools.lru_cache(maxsize=3)
def _network(name: str, device: torch.device) -> Any:
    import pyiqa  # pyright: ignore[reportMissingImports] - an extra that development does not install

    with torch.random.fork_rng(devices=[]):
        return pyiqa.create_metric(name, device=device)


def _missing(files: tuple[Path, ...], where: str) -> str | None:
    if importlib.util.find_spec("pyiqa") is None:
        return 'pyiqa from the extra `iqa` (pip install "sed-trainer[iqa]")'
    if not any(path.is_file() for path in files):
        return f"{files[0].name} from {where} in {files[0].parent}"
    return None


def _metric(name: str, label: str, source: str, files: tuple[Path, ...], where: str, smallest_side_px: int) -> Metric:
    def measure(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
        with full_precision(), torch.random.fork_rng(devices=[]):
            return float(_network(name, metric_device())(to_tensor(sr)))

    return Metric(
        name=name,
        label=label,
        measure=measure,
        protocol=f"RGB of the rounded 8-bit image, whole image; pyiqa's `{name}`",
        is_higher_better=True,
        kind="perceptual",
        needs_reference=False,
        source=f"{source}; pyiqa (extra `iqa`)",
        weights=f"{files[0].name} from {where}",
        uses_gpu=True,
        smallest_side_px=smallest_side_px,
        missing=lambda: _missing(files, where),
    )


def _cached(file: str) -> Path:
    return Path(torch.hub.get_dir()) / "pyiqa" / file


CLIPIQA = _metric(
    "clipiqa",
    "CLIP-IQA",
    "Wang et al. 2023, arXiv:2207.12396",
    (Path(torch.hub.get_dir()) / "clip" / "RN50.pt",),
    "https://openaipublic.azureedge.net/clip/models/afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt",
    32,
)
MUSIQ = _metric(
    "musiq",
    "MUSIQ",
    "Ke et al. 2021, arXiv:2108.05997 (KonIQ-10k)",
    (_cached("musiq_koniq_ckpt-e95806b9.pth"),),
    _PAGE,
    32,
)
MANIQA = _metric(
    "maniqa", "MANIQA", "Yang et al. 2022, arXiv:2204.08958 (KonIQ-10k)", (_cached("ckpt_koniq10k.pt"),), _PAGE, 224
)
