"""What a registered version ships beside its weights, so that it loads where this project is not installed.

That is a copy of the rooms that `serving` imports, the package of a generator from outside this project, and the
installed versions of the libraries that these import. `tests/unit/tracking/test_shipped_code.py` loads a version where
nothing else can be imported.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

import numpy as np
import torch

from pipeline.inference import serving
from pipeline.inference.tiles import DEFAULT_TILE_PX
from pipeline.inference.upscale import upscale
from pipeline.models.generators import Generator
from pipeline.tracking.packages import Package
from shards.errors import InputError

ROOMS = (
    "pipeline/__init__.py", "pipeline/errors.py", "pipeline/registry.py", "pipeline/pretrained", "pipeline/weights",
    "pipeline/models/__init__.py", "pipeline/models/grid.py", "pipeline/models/shapes.py",
    "pipeline/models/generators", "pipeline/models/ops", "pipeline/models/semantics",
    "pipeline/inference/__init__.py", "pipeline/inference/serving.py", "pipeline/inference/tiles.py",
    "pipeline/inference/upscale.py",
    "shards/__init__.py", "shards/errors.py", "shards/registry.py", "shards/schema.py", "shards/secrets.py",
    "shards/format",
)  # fmt: skip
LIBRARIES = ("fsspec", "jaxtyping", "numpy", "pillow", "safetensors", "torch")
"""Imported by these rooms; a network of another library adds that one."""
MAX_PIXELS = 2**24
"""Of a picture in a request; at x4 its PNG has 16 times as many."""

_PROJECT = Path(__file__).parents[2]
_EXAMPLE_SIZE_PX = (17, 24)


def package(generator: Generator, weights: Path, folder: Path) -> Package:
    """Collect what a version consists of.

    Args:
        generator: In evaluation mode, on the CPU.
        weights: Its safetensors file.
        folder: An empty folder for the copies.

    Raises:
        InputError: The network's class is defined in a script, which cannot be imported elsewhere.
    """
    network = type(generator).__module__
    example = np.random.RandomState(0).random_sample((*_EXAMPLE_SIZE_PX, 3)).astype(np.float32)
    return Package(
        weights=weights,
        code=[*_copy_rooms(folder), *_foreign_code(network)],
        requirements=requirements_of(generator),
        settings={"entry": serving.__name__, "network": network, "device": "auto", "max_pixels": MAX_PIXELS},
        parameters={"tile_px": DEFAULT_TILE_PX},
        request={serving.COLUMN: [serving.to_base64(np.full((*_EXAMPLE_SIZE_PX, 3), 128, np.uint8))]},
        example=example,
        expected=upscale(generator, example, generator.scale),
    )


def requirements_of(generator: torch.nn.Module) -> list[str]:
    """Return the libraries that a generator needs, as requirements with the installed version.

    A local version, as in `2.9.0+cu130`, is cut: package indexes do not have it.
    """
    libraries = {*LIBRARIES, *_libraries_of(generator)}
    if not _is_ours(type(generator).__module__):
        libraries.add("spandrel")  # whose architectures are offered a file before those of other projects
    return sorted(f"{name}=={version(name).partition('+')[0]}" for name in libraries)


def _libraries_of(generator: torch.nn.Module) -> Iterator[str]:
    """Yield the installed packages that define the network's modules."""
    owners = packages_distributions()
    modules = {type(module).__module__ for module in generator.modules()}
    for root in {_root(module) for module in modules if not _is_ours(module)}:
        yield from owners.get(root, [])


def _root(module: str) -> str:
    return module.partition(".")[0]


def _is_ours(module: str) -> bool:
    return _root(module) == _root(__name__)


def _copy_rooms(folder: Path) -> list[Path]:
    """Copy the rooms into a folder; return their packages."""
    for room in ROOMS:
        source, target = _PROJECT / room, folder / room
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    return sorted(folder.iterdir())


def _foreign_code(network: str) -> list[Path]:
    """Return the package or file of a generator that is neither of this project nor installed."""
    root = _root(network)
    if _is_ours(network) or packages_distributions().get(root):
        return []
    module = sys.modules[root]
    file = getattr(module, "__file__", None)
    if root == "__main__" or file is None:
        raise InputError(
            f"the generator's class is defined in {root}, which a registered version cannot import; put it into a "
            "module of its own and import that"
        )
    return [Path(file).parent if hasattr(module, "__path__") else Path(file)]
