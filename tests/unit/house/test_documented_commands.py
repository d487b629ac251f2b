"""Every job's command in README.md, docs/ and infra/ is one that the job takes: its flags exist, its values fit them.

What a command then does is what the tests of the jobs are for.
"""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT

from jobs.command_line import CommandLine

FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FILES += sorted(path for path in (ROOT / "infra").rglob("*") if path.suffix in {".yaml", ".sbatch", ".sh"})
# Words that stand for a user's own; what a flag of a type other than text or path would refuse.
PLACEHOLDERS = {"PRESET": "demo", "EXPERIMENT": "demo", "N": "8"}
LINE = re.compile(r"(?<![\w/.])jobs/(?P<job>\w+)\.py(?P<arguments>(?: [^\s#|;&`<>\"]+)*)")


def documented(path: Path) -> Iterator[tuple[str, str]]:
    """The jobs and arguments that a file has; continued lines are joined, comments of a shell end a command."""
    text = re.sub(r"\\\n[#\s]*", "", path.read_text(encoding="utf-8"))
    for match in LINE.finditer(text):
        if match["arguments"] and not re.search(r"\.\.\.|[\[$]", match["arguments"]):
            yield match["job"], match["arguments"].strip()


COMMANDS = sorted({command for path in FILES for command in documented(path)})


class _ParsedError(Exception):
    """The job has taken its arguments, and would begin."""


@pytest.fixture
def stops_when_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs end where their arguments are read."""

    def stopping(parse: Callable[..., Any]) -> Callable[..., Any]:
        def parsed(*arguments: Any) -> None:
            parse(*arguments)
            raise _ParsedError

        return parsed

    for name in ("parse", "parse_preset"):
        monkeypatch.setattr(CommandLine, name, stopping(getattr(CommandLine, name)))


@pytest.mark.usefixtures("stops_when_parsed")
@pytest.mark.parametrize(("job", "arguments"), COMMANDS, ids=[" ".join(command) for command in COMMANDS])
def test_documented_command_is_one_that_its_job_takes(job: str, arguments: str) -> None:
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(arguments)]
    with pytest.raises(_ParsedError):
        importlib.import_module(f"jobs.{job}").main(words)


def test_a_command_with_a_flag_that_is_gone_is_found(stops_when_parsed: None) -> None:
    assert len(COMMANDS) > 50
    with pytest.raises(SystemExit):
        importlib.import_module("jobs.shard").main(["demo", "--overlap-px", "8"])
