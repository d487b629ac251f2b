import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.degradation.recipe import FOLDER, Recipe, load_recipe, parse_recipe
from shards.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _table(name: str = "realesrgan-1") -> dict[str, Any]:
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["realesrgan-1", "realesrgan-light-1", "bicubic-1"])
def test_load_of_a_shipped_recipe_has_its_name(name: str) -> None:
    assert load_recipe(name).name == name


def test_load_by_path_equals_load_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes((FOLDER / "realesrgan-1.toml").read_bytes())
    assert load_recipe(path) == load_recipe("realesrgan-1")


def test_load_of_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"realesrgan-2.*bicubic-1, realesrgan-1"):
        load_recipe("realesrgan-2")


def test_load_of_what_is_not_toml_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("format = ", encoding="utf-8")
    with pytest.raises(InputError, match=r"broken\.toml: not TOML"):
        load_recipe(path)


def _set(*path: str | int, value: object) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_set("stages", 0, "blur", "isotropic_probability", value=0.5), r"sum.*1\.05.*stages\[0\]\.blur"),
        (_set("stages", 0, "blur", "sigma_px", value=[-0.2, 3.0]), r"sigma_px must be.*-0\.2"),
        (_set("stages", 0, "blur", "sigma_px", value=[3.0, 0.2]), "low <= high"),
        (_set("stages", 0, "noise", "sigma_255", value=[-1.0, 3.0]), r"sigma_255 must be.*-1"),
        (_set("stages", 0, "order", value=["blur", "resize", "noise", "haze"]), "haze"),
        (_set("stages", 0, "order", value=["blur", "resize", "noise"]), r"order must be.*jpeg"),
        (_set("stages", 0, "jpeg", "quality", value=[0.0, 95.0]), "quality must be"),
        (_set("stages", 0, "jpeg", "qualty", value=1), "unknown key 'qualty', did you mean 'quality'"),
        (_set("stages", 1, "resize", "up_probability", value="0.3"), "expected a finite number, got '0.3'"),
        (_set("sharpen", "radius_px", value=50.5), "whole number, got 50.5"),
        (_set("end", "jpeg_last_probability", value=1.5), r"probability in \[0, 1\]; got 1.5"),
        (_set("end", "sinc", "size_px", value=[7, 23]), "odd, from 1 to 21"),
        (_set("format", value=2), "format must be 1"),
        (_set("end", "sinc", "probability", value=float("nan")), "finite number, got nan"),
    ],
)
def test_parse_of_a_faulty_recipe_names_field_and_value(change: Callable[[Any], None], text: str) -> None:
    table = _table()
    change(table)
    with pytest.raises(InputError, match=text) as caught:
        parse_recipe(table, "mine.toml")
    assert "mine.toml: 1 fault(s)" in str(caught.value)


def test_parse_of_several_faults_lists_them_all() -> None:
    table = _table()
    table["stages"][0]["noise"]["gray_probability"] = 2.0
    table["stages"][1]["blur"]["probability"] = -1.0
    with pytest.raises(InputError, match=r"2 fault\(s\)"):
        parse_recipe(table, "mine.toml")


def test_parse_of_the_least_recipe_is_a_plain_resize() -> None:
    recipe = parse_recipe(_table("bicubic-1"), "bicubic-1")
    assert recipe == Recipe(1, "bicubic-1", recipe.end)
    assert recipe.end.matlab_bicubic_probability == 1
