"""The import rules have no holes: an import planted in any room, in a file that nobody planned for, is refused.

Each plant is a file of its own in a copy of the source. One run of `lint-imports` sees all plants of a test and must
name every one, by module and line.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import BIN, ROOT

PACKAGES = ("jobs", "pipeline", "shards")
OWNERS = {
    "accelerate": {"pipeline.runtime"},
    "cattrs": {"pipeline.config", "shards"},
    "deepspeed": {"pipeline.runtime"},
    "huggingface_hub": {"pipeline.models.semantics"},
    "jinja2": {"pipeline.inference.html_report"},
    "matplotlib": {"pipeline.inference"},
    "mlflow": {"pipeline.tracking"},
    "open_clip": {"pipeline.models.semantics"},
    "numcodecs": {"shards.format.codecs"},
    "piq": {"pipeline.metrics"},
    "pyiqa": set(),
    "ray": {"jobs"},
    "sklearn": {"pipeline.inference.visualise"},
    "spandrel": {"pipeline.models.generators.spandrel"},
    "threadpoolctl": {"pipeline.inference.visualise"},
    "timm": {"pipeline.models.semantics", "pipeline.pretrained"},
    "torch": {"jobs", "pipeline"},
    "torchmetrics": {"pipeline.metrics"},
    "tyro": {"jobs", "pipeline.config"},
    "webdataset": set(),
}
# Top to bottom; the rooms of one line may not import each other.
FLOORS = (
    (("jobs",), ("pipeline",), ("shards",)),
    (
        ("pipeline.experiments",),
        ("pipeline.run",),
        ("pipeline.inference",),
        ("pipeline.train",),
        ("pipeline.checkpoint", "pipeline.data", "pipeline.runtime", "pipeline.tracking"),
        ("pipeline.config",),
        ("pipeline.degrade", "pipeline.losses", "pipeline.metrics", "pipeline.models"),
        ("pipeline.pretrained",),
        ("pipeline.weights",),
    ),
    (("shards.write", "shards.read"), ("shards.format",), ("shards.degradation",)),
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The three packages and the rules, without a plant."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def rooms() -> list[str]:
    """Every package of the source, as a dotted name."""
    return [
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("__init__.py"))
    ]


def plant(copy: Path, room: str, imported: str) -> str:
    """Write a module that imports what it may not; returns the words in which the linter must name it."""
    name = f"planted_{imported.replace('.', '_')}"
    (copy / Path(*room.split(".")) / f"{name}.py").write_text(f'"""Planted."""\n\nimport {imported}\n')
    return f"{room}.{name} -> {imported} (l.3)"


def lint(copy: Path) -> tuple[int, str]:
    done = subprocess.run(
        [BIN / "lint-imports", "--no-cache"],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def assert_all_named(copy: Path, planted: list[str]) -> None:
    code, output = lint(copy)
    assert code == 1, output
    assert [words for words in planted if words not in output] == []


def is_in(room: str, owners: set[str]) -> bool:
    return any(room == owner or room.startswith(f"{owner}.") for owner in owners)


def test_source_without_a_plant_keeps_every_rule(copy: Path) -> None:
    code, output = lint(copy)
    assert code == 0, output
    assert re.search(r"Contracts: \d+ kept, 0 broken", output)


def test_library_when_imported_outside_its_owner_is_refused_in_every_room(copy: Path) -> None:
    places = itertools.product(OWNERS, rooms())
    planted = [plant(copy, room, library) for library, room in places if not is_in(room, OWNERS[library])]
    assert_all_named(copy, planted)


def test_library_when_imported_by_a_new_file_of_its_owner_is_accepted(copy: Path) -> None:
    for library, room in itertools.product(OWNERS, rooms()):
        if is_in(room, OWNERS[library]) and room not in {"pipeline", "shards"}:  # a file at their top is no room's
            plant(copy, room, library)
    code, output = lint(copy)
    assert code == 0, output


def test_room_when_it_imports_one_above_or_beside_it_is_refused(copy: Path) -> None:
    planted = []
    for floors in FLOORS:
        for height, floor in enumerate(floors):
            for room in floor:
                above = {other for higher in floors[: height + 1] for other in higher} - {room}
                planted += [plant(copy, room, other) for other in sorted(above)]
    assert_all_named(copy, planted)


def test_room_when_new_must_be_given_a_floor(copy: Path) -> None:
    for package in ("pipeline", "shards"):
        (copy / package / "cellar").mkdir()
        (copy / package / "cellar" / "__init__.py").write_text('"""A room that no rule knows."""\n')
    code, output = lint(copy)
    assert code == 1
    assert "pipeline.cellar" in output
    assert "shards.cellar" in output


def test_floors_name_every_room() -> None:
    named = {room for floors in FLOORS for floor in floors for room in floor}
    assert named == {room for room in rooms() if room.count(".") <= 1 and not room.startswith("jobs.")}
