"""List the benchmarks and how to run each, or run all that need a GPU (`--gpu`)."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def main() -> int:
    """Print the first paragraph and the command of every benchmark, or hand over to `gpu.py`."""
    if sys.argv[1:2] == ["--gpu"]:
        sys.path.insert(0, str(FOLDER))  # as for a benchmark that is started by its path
        from gpu import main as measure

        return measure(sys.argv[2:])
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        docstring = path.read_text(encoding="utf-8").split('"""')[1]
        question, _, rest = docstring.partition("\n\n")
        command = rest.partition("Run:\n")[2].rstrip()
        print(f"{path.name}: {' '.join(question.split())}\n{command}\n")
    print("What they printed, with device and date: docs/benchmarks.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
