"""Degradation recipes: operations, their order and distributions as versioned data, read strictly from TOML.

A recipe says which operations run, in which order, and how each parameter is distributed. It is data: users write
their own files like those shipped in `recipes/`. A file with an unknown key, a missing one, a wrong type or an
impossible value is refused, with every fault listed. A shipped recipe never changes; a changed one gets a new name
(`realesrgan-2`), because datasets record the name.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any, Optional

import cattrs

from shards.degradation.end import EndRecipe
from shards.degradation.operation import MAX_STAGES
from shards.degradation.operations import OPERATIONS
from shards.degradation.rules import require
from shards.errors import InputError
from shards.schema import strict_converter, structure_with

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1
_MAX_BYTES = 1 << 22
FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class SharpenRecipe:
    """Unsharp mask of the ground truth, before every other step; also the target of pixel and perceptual losses.

    Attributes:
        radius_px: Side of the Gaussian window; one is added when even.
        weight: How much of the detail is added.
        threshold_255: Detail of at most this many gray levels is not sharpened.
    """

    radius_px: int
    weight: float
    threshold_255: float

    def __post_init__(self) -> None:
        require(self.radius_px >= 1, "radius_px", self.radius_px, "1 or more")
        require(self.weight >= 0, "weight", self.weight, "0 or more")
        require(self.threshold_255 >= 0, "threshold_255", self.threshold_255, "0 or more")


@dataclass(frozen=True)
class StageRecipe:
    """One stage: operations in order, each at most once.

    In a file, `order` lists the names, and each operation has a table of its own; a table that is not in `order` is
    refused.

    Attributes:
        operations: Name and table of each operation, in the order in which they run.
    """

    operations: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Recipe:
    """A whole degradation.

    Attributes:
        format: Version of this schema.
        name: Recorded with every dataset that uses it; ends in the version of the recipe.
        end: What produces the low-quality size.
        stages: Up to two.
        sharpen: Without this table, the ground truth is used as it is.
    """

    format: int
    name: str
    end: EndRecipe
    stages: tuple[StageRecipe, ...] = ()
    sharpen: SharpenRecipe | None = None

    def __post_init__(self) -> None:
        require(self.format == FORMAT, "format", self.format, f"{FORMAT}, the one this version reads")
        require(len(self.stages) <= MAX_STAGES, "stages", len(self.stages), f"at most {MAX_STAGES}")
        require(bool(self.name.strip()), "name", repr(self.name), "a name")


@functools.lru_cache(maxsize=32)
def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a shipped recipe by name, or any by path; cached per process, so that calling it per sample is cheap.

    Args:
        name_or_path: `realesrgan-1`, `realesrgan-light-1`, `bicubic-1`, or a path that ends in `.toml`.

    Raises:
        InputError: No such recipe, no TOML, or faults in it, all listed with their place.
    """
    return parse_recipe(read_recipe_table(name_or_path), where=str(name_or_path))


def read_recipe_table(name_or_path: str | Path) -> dict[str, Any]:
    """Read a recipe's file, unchecked; see `load_recipe`.

    Raises:
        InputError: No such recipe, or no TOML.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = FOLDER / f"{name_or_path}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
        raise InputError(f"no recipe {str(name_or_path)!r}; known: {known}; or give a path that ends in .toml")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} has {path.stat().st_size:,} bytes, and is no recipe")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # also of an integer of thousands of digits
        raise InputError(f"{path}: not TOML: {error}") from error


def parse_recipe(table: dict[str, Any], where: str) -> Recipe:
    """Build a recipe from a table, such as a run's recorded configuration.

    Args:
        table: Nested dictionaries and lists.
        where: Named in errors.

    Raises:
        InputError: Lists every fault.
    """
    return structure_with(_CONVERTER, table, Recipe, where)


def _stage(table: Any, _: type) -> StageRecipe:
    """Read a stage through a class with one optional field per registered operation."""
    tables = [(operation.name, Optional[operation.table], None) for operation in OPERATIONS]  # noqa: UP045 - a value
    given = _CONVERTER.structure(table, make_dataclass("Stage", [("order", tuple[str, ...]), *tables]))
    order = tuple(OPERATIONS[name].name for name in given.order)
    named = {operation.name for operation in OPERATIONS if getattr(given, operation.name) is not None}
    holds = named == set(order) and len(named) == len(order)
    require(holds, "order", list(order), f"the stage's tables {sorted(named)}, each once")
    return StageRecipe(tuple((name, getattr(given, name)) for name in order))


def _make_converter() -> cattrs.Converter:
    converter = strict_converter()
    converter.register_structure_hook(StageRecipe, _stage)
    return converter


_CONVERTER = _make_converter()
