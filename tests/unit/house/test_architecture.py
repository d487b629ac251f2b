"""The shape of the source: files of a readable size, rooms with a docstring, and a README that shows them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("jobs", "pipeline", "shards")
MAX_LINES = 400
VAGUE_NAMES = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}


def python_files(*folders: str) -> list[Path]:
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert files
    return files


def rooms() -> list[Path]:
    return [path.parent for path in python_files(*PACKAGES) if path.name == "__init__.py"]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_files_have_at_most_400_lines() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in python_files(*PACKAGES, "benchmarks")}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_modules_are_named_after_what_they_hold() -> None:
    names = [path.parent if path.name == "__init__.py" else path for path in python_files(*PACKAGES)]
    assert [relative(path) for path in names if set(path.stem.strip("_").split("_")) & VAGUE_NAMES] == []


@pytest.mark.parametrize("room", rooms(), ids=relative)
def test_room_says_what_it_is(room: Path) -> None:
    docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    assert docstring, f"{relative(room)}/__init__.py has no docstring"
    assert len(docstring.split()) >= 4


def test_folders_of_python_files_are_packages() -> None:
    # Elsewhere neither the import rules nor the wheel would see them.
    folders = {path.parent for path in python_files(*PACKAGES)}
    assert sorted(relative(folder) for folder in folders - set(rooms())) == []


@pytest.mark.parametrize("folder", ["infra", "jobs/presets", "shards/degradation/recipes"])
def test_configuration_holds_no_code(folder: str) -> None:
    suffixes = {
        path.suffix for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert (
        suffixes - {".json", ".md", ".sbatch", ".sh", ".toml", ".yaml", ".yml", ".Dockerfile", ".dockerignore"} == set()
    )


@pytest.mark.parametrize("package", ["pipeline", "shards"])
def test_library_builds_no_path_to_the_jobs(package: str) -> None:
    # Messages name jobs (`jobs/train_sed.py`); a path is built from names without blanks, of folders.
    strings = {
        (relative(path), node.value)
        for path in python_files(package)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert {(path, text) for path, text in strings if re.fullmatch(r"(.*/)?(jobs|presets)(/.*)?", text)} == set()


def test_readme_shows_the_rooms() -> None:
    shown = tree_of((ROOT / "README.md").read_text())
    there = {relative(room) for room in rooms()}
    outermost = {name for name in there if name.count("/") <= 1}
    assert outermost - shown == set(), "rooms that README.md does not show"
    assert {name for name in shown if not (ROOT / name).is_dir()} == set(), "README.md shows folders that are not there"


def test_documents_name_files_that_exist() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    path = re.compile(r"[`( ]((?:benchmarks|docs|infra|jobs|pipeline|shards|tests)/[\w./-]*\w)[/`)\n ]")
    named = {(relative(document), name) for document in documents for name in path.findall(document.read_text())}
    assert len(named) > 40
    missing = {(document, name) for document, name in named if not (ROOT / name).exists()}
    assert {(document, name) for document, name in missing if "NAME" not in name} == set()


def tree_of(readme: str) -> set[str]:
    """Return the folders in the first code block below "The tree", whose indentation is their depth."""
    block = re.search(r"^## The tree\n.*?```\n(.*?)```", readme, re.DOTALL | re.MULTILINE)
    assert block, "README.md has no tree"
    parents: list[str] = []
    shown: set[str] = set()
    for line in block[1].splitlines():
        entry = re.match(r"( *)([\w.-]+)/ +\S", line)
        if entry:
            parents = [*parents[: len(entry[1]) // 2], entry[2]]
            shown.add("/".join(parents))
    return shown
