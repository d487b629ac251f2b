"""How jobs speak: exit codes, the numbers of a progress line, and a port that is taken."""

from __future__ import annotations

import errno
import json
import socket
from pathlib import Path

import pytest

import pipeline.progress
from jobs.terminal import EXIT_FAULTS, JobStoppedError, run_job
from jobs.ui import check_port
from pipeline.errors import RankLostError, TrackingError
from pipeline.progress import Progress
from shards.errors import InputError, ShardError


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pipeline.progress, "time", clock)
    return clock


def test_facts_when_running_give_the_late_rate_and_what_is_left(clock: Clock) -> None:
    with Progress("writing", 1000, "samples") as progress:
        for _ in range(10):
            clock.now_s += 1
            progress.advance(2, size_bytes=500_000)
        assert progress.facts() == "2.0 samples/s, 0.5 MB/s, 8:10 left"
        clock.now_s += 30  # what was long ago no longer counts
        for _ in range(30):
            clock.now_s += 1
            progress.advance(10, num_rejects=1)
        assert progress.facts() == "10.0 samples/s, 0.0 MB/s, 1:08 left, 30 rejected"


def test_facts_when_finished_give_the_whole_stage_without_earlier_work(clock: Clock) -> None:
    with Progress("training", 100, "images", start=60) as progress:
        clock.now_s += 4000
        progress.advance(40)
    assert progress.facts() == "0.0 images/s, 1:06:40"
    assert progress.done == 100


def test_facts_when_nothing_is_done_yet_do_not_divide_by_zero(clock: Clock) -> None:
    assert Progress("training", 100, "images").facts() == "0.0 images/s, 0:00"


def test_lines_when_no_terminal_come_every_few_seconds_and_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("training", 40, "images") as progress:
        for _ in range(12):
            clock.now_s += 1
            progress.advance(2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split(",")[0] for line in captured.err.splitlines()] == [
        "training: 10/40 images",
        "training: 20/40 images",
        "training: 24/40 images",
    ]


def test_status_file_when_asked_for_is_up_to_date_at_the_end(clock: Clock, tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    with Progress("writing", 3, "samples", status=status) as progress:
        assert json.loads(status.read_text())["done"] == 0
        clock.now_s += 0.5
        progress.advance(2, size_bytes=7, num_rejects=1)
        assert json.loads(status.read_text())["done"] == 0
    found = json.loads(status.read_text())
    wanted = {"stage": "writing", "done": 2, "total": 3, "size_bytes": 7, "num_rejects": 1, "elapsed_s": 0.5}
    assert wanted.items() <= found.items()
    assert list(tmp_path.iterdir()) == [status]


def raising(error: BaseException):
    def main(argv: list[str]) -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("no such thing; do this"), 2, "error: no such thing; do this\n"),
        (ShardError("bad tar"), 2, "error: bad tar\n"),
        (RankLostError("lost rank 1"), 1, "error: lost rank 1\n"),
        (TrackingError("no server"), 1, "error: no server\n"),
        (JobStoppedError("drained", 143), 143, "drained\n"),
        (KeyboardInterrupt(), 130, "interrupted; rerun the same command to resume\n"),
    ],
)
def test_job_when_it_ends_early_becomes_one_message_and_a_code(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(raising(error), []) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", text)


def test_job_when_the_fault_is_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_job(raising(ZeroDivisionError()), [])


def test_port_when_something_listens_on_it_is_refused_with_the_next() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} on 127\.0\.0\.1 cannot be used: Address already in use"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


@pytest.mark.parametrize("port", [-1, 70_000])
def test_port_when_it_is_none_is_refused(port: int) -> None:
    with pytest.raises(InputError, match=f"port {port} on .* cannot be used"):
        check_port("127.0.0.1", port)


def test_host_when_it_is_not_of_this_machine_is_refused() -> None:
    with pytest.raises(InputError, match=r"on 192\.0\.2\.1 cannot be used: Cannot assign requested address"):
        check_port("192.0.2.1", 5000)


def test_job_when_its_store_is_unreachable_ends_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str]) -> int:
        raise OSError(errno.EIO, "no response from 127.0.0.1:9 within 5 s", "s3://bucket/shards/manifest.json")

    assert run_job(main, []) == EXIT_FAULTS
    text = capsys.readouterr().err
    assert "s3://bucket/shards/manifest.json cannot be used: no response from 127.0.0.1:9" in text
    assert "AWS_*" in text


def test_job_when_a_local_file_fails_unexpectedly_keeps_its_traceback() -> None:
    def main(argv: list[str]) -> int:
        raise OSError(errno.EIO, "Input/output error", "/data/shard.tar")

    with pytest.raises(OSError, match="Input/output"):
        run_job(main, [])
