"""List the benchmarks, run all of a CPU (`--run`) or a GPU (`--gpu`), or write documents from files (`--render`)."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def main() -> int:
    """Print the first paragraph and the command of every benchmark, or hand over to `_suite.py` or `gpu.py`."""
    if sys.argv[1:2] == ["--gpu"]:
        sys.path.insert(0, str(FOLDER))  # as for a benchmark that is started by its path
        from gpu import main as measure

        return measure(sys.argv[2:])
    if sys.argv[1:2] == ["--render"]:
        from benchmarks._document import rewrite

        print("\n".join(f"rewrote {path}" for path in rewrite(FOLDER.parent / "docs")))
        return 0
    if sys.argv[1:] and sys.argv[1:] != ["--list"]:
        from benchmarks._suite import main as run

        return run(sys.argv[1:])
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        docstring = path.read_text(encoding="utf-8").split('"""')[1]
        question, _, rest = docstring.partition("\n\n")
        command = rest.partition("Run:\n")[2].rstrip()
        print(f"{path.name}: {' '.join(question.split())}\n{command}\n")
    print("All on a CPU, with the tables of docs/benchmarks.md: python -m benchmarks --run [NAME ...] [--peers DIR]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
