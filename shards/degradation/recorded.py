"""How a dataset records its degradation recipe: a shipped one by name, a custom one with its whole content.

A shipped recipe never changes, so its name says everything. The content of another one travels in the manifest:
training applies exactly the recipe that the dataset was sharded with, also on a machine without that file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shards.degradation.recipe import FOLDER, Recipe, load_recipe, parse_recipe, read_recipe_table
from shards.errors import InputError, shown


def record_recipe(name_or_path: str) -> tuple[str, dict[str, Any] | None]:
    """Return what a dataset records of a recipe.

    Args:
        name_or_path: Name of a shipped recipe, or a path that ends in `.toml`.

    Returns:
        Its name, and its table unless it is a shipped one.

    Raises:
        InputError: No such recipe, no TOML, faults in it, all listed, or a name that a shipped recipe of other content
            has.
    """
    table = read_recipe_table(name_or_path)
    recipe = parse_recipe(table, where=name_or_path)
    if not (FOLDER / f"{recipe.name}.toml").is_file():
        return recipe.name, table
    if recipe != load_recipe(recipe.name):
        raise InputError(
            f"{name_or_path} has the name of a shipped recipe, {recipe.name!r}, and another content; "
            "datasets record the name, so give it one of its own"
        )
    return recipe.name, None


def recorded_recipe(name: str, table: Mapping[str, Any] | None) -> Recipe:
    """Return the recipe that a dataset recorded.

    Args:
        name: Its name.
        table: Its content; None for a shipped recipe.

    Raises:
        InputError: This version does not ship it, or does not read its content.
    """
    if table is None and name not in {file.stem for file in FOLDER.glob("*.toml")}:
        # A dataset's name must not become the path of a file of the reader's.
        raise InputError(f"the dataset names the recipe {shown(name)}, which this version does not ship; update it")
    return load_recipe(name) if table is None else parse_recipe(dict(table), where=f"recipe {name!r} of the dataset")
