"""List the benchmarks and how to run each: they measure against checkouts of named peers, given by path."""

from __future__ import annotations

from pathlib import Path


def main() -> None:
    """Print the first paragraph and the command of every benchmark."""
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        docstring = path.read_text(encoding="utf-8").split('"""')[1]
        question, _, rest = docstring.partition("\n\n")
        command = rest.partition("Run:\n")[2].rstrip()
        print(f"{path.name}: {' '.join(question.split())}\n{command}\n")
    print("What they printed, with device and date: docs/benchmarks.md")


if __name__ == "__main__":
    main()
