"""Short names of models: what a person would call each, and no two alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.inference.html_report.names import short_names
from shards.errors import InputError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/p.v2", "old/p.v2", "HR"):
        Path(folder).mkdir(parents=True)


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (["runs/p.v2"], ["p.v2"]),
        (["runs/p.v2/", "weights/rrdb.pth"], ["p.v2", "rrdb"]),
        (["runs/p.v2", "old/p.v2"], ["runs/p.v2", "old/p.v2"]),
        (["a/export/g.safetensors", "b/export/g.safetensors"], ["a/export/g", "b/export/g"]),
        (["models:/sed-x4@champion", "models:/sed-x4@challenger"], ["sed-x4@champion", "sed-x4@challenger"]),
    ],
)
def test_names_are_as_short_as_they_can_be(models: list[str], names: list[str]) -> None:
    assert short_names(models) == dict(zip(names, models, strict=True))


def test_model_called_like_a_row_of_its_own_gets_a_longer_name(tmp_path: Path) -> None:
    assert list(short_names(["HR", "bicubic.pth"])) == [f"{tmp_path.name}/HR", f"{tmp_path.name}/bicubic"]


@pytest.mark.parametrize("again", ["runs/p.v2", "./runs/p.v2", "old/../runs/p.v2/"])
def test_model_that_is_given_twice_is_refused(again: str) -> None:
    with pytest.raises(InputError, match=r"given twice; got runs/p\.v2"):
        short_names(["runs/p.v2", again])
