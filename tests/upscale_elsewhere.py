"""A program that upscales with a registered version where neither this project nor a library that the version's
requirements do not bring can be imported.

    python -I upscale_elsewhere.py MODEL LQ.npy SR.npy
"""

from __future__ import annotations

import re
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

SHIPPED = ("pipeline", "shards")


def required_by(model: Path) -> set[str]:
    """The libraries that pip would install for a version, those that its requirements require included."""
    pending, found = (model / "requirements.txt").read_text().split(), set()
    while pending:
        match = re.match(r"[\w.-]+", pending.pop())
        name = normal(match[0]) if match else ""
        if name in found:
            continue
        found.add(name)
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:  # an optional one of a library
            continue
        pending += [line for line in requires if "extra ==" not in line]
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class OnlyRequirements:
    """Finds modules as Python does, but those of other libraries; it replaces the finder of editable installations."""

    find_distributions = PathFinder.find_distributions
    forbidden: frozenset[str] = frozenset()

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in cls.forbidden else PathFinder.find_spec(name, path, target)


def forbid_others(model: Path) -> None:
    allowed = required_by(model)
    owners = packages_distributions()
    others = {name for name, of in owners.items() if not {normal(owner) for owner in of} & allowed}
    assert {"accelerate", "ray"} <= others, sorted(others)
    OnlyRequirements.forbidden = frozenset((others | {"jobs", "tests", "harness"}) - {*SHIPPED})
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, OnlyRequirements]
    for name in SHIPPED:
        try:
            __import__(name)
        except ModuleNotFoundError:
            continue
        raise SystemExit(f"{name} can be imported from {sys.modules[name].__file__}")


def main(model: Path, lq: str, sr: str) -> None:
    forbid_others(model)
    import mlflow.pyfunc
    import numpy as np

    np.save(sr, mlflow.pyfunc.load_model(str(model)).predict(np.load(lq)))
    for name in SHIPPED:
        file = sys.modules[name].__file__
        assert Path(file or "").is_relative_to(model), file


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
