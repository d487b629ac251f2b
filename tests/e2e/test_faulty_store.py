"""Shards through an object store that delays, resets and refuses requests: nothing is lost, and refusals are named."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import s3fs
from faulty_proxy import Fault, FaultyProxy, ResetAfter, Respond, Wait, faulty_proxy
from harness import write_photos, write_shards

import jobs.verify
from jobs.terminal import EXIT_BAD_INPUT, run_job
from shards.config import ShardConfig
from shards.format.remote import RemotePath
from shards.read.cache import ShardCache
from shards.read.reader import ShardSet

SLOW_DOWN = Respond("503 Slow Down", "SlowDown", "Please reduce your request rate.")
FAULTS: tuple[Fault, ...] = (SLOW_DOWN, ResetAfter(200), Wait(0.1), ResetAfter(0), SLOW_DOWN, ResetAfter(5000))


@contextmanager
def disturbed(monkeypatch: pytest.MonkeyPatch, fault: Callable[[int], Fault | None]) -> Iterator[FaultyProxy]:
    """Let this process reach its store through a faulty proxy only."""
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"], fault) as proxy, monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def config(tmp_path: Path) -> ShardConfig:
    photos = write_photos(tmp_path / "photos", [(150 + number, 171) for number in range(4)])
    return ShardConfig((photos,), tmp_path / "local", "classical", 4, 64, 32, 2, 3, 0.03)


def every_third(number: int) -> Fault | None:
    """Disturb a third of the requests, each in another way than the one before; a repetition comes through."""
    return None if number % 3 else FAULTS[number // 3 % len(FAULTS)]


@pytest.mark.slow
def test_shards_written_and_read_through_a_store_that_fails_often_are_those_of_a_folder(
    bucket: str, config: ShardConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(config)
    local = Path(str(config.output))
    remote = RemotePath(f"{bucket}/shards")
    with disturbed(monkeypatch, every_third) as proxy:
        write_shards(dataclasses.replace(config, output=remote))
        images, expected = ShardSet.open(remote, ShardCache(tmp_path / "cache", 2**28)), ShardSet.open(local)
        for number in range(len(expected)):
            assert images.sample(number) == expected.sample(number)
        assert proxy.num_faults > 20
    assert {path.name: path.read_bytes() for path in remote.iterdir() if path.name != "status.json"} == {
        path.name: path.read_bytes() for path in local.iterdir() if path.name != "status.json"
    }


REFUSALS = {
    "expired token": Respond("400 Bad Request", "ExpiredToken", "The provided token has expired."),
    "wrong secret": Respond(
        "403 Forbidden", "SignatureDoesNotMatch", "The request signature we calculated does not match the signature."
    ),
    "no permission": Respond("403 Forbidden", "AccessDenied", "Access Denied"),
    "missing bucket": Respond("404 Not Found", "NoSuchBucket", "The specified bucket does not exist"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_job_when_the_store_refuses_says_why(
    name: str, bucket: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with disturbed(monkeypatch, lambda _: REFUSALS[name]):
        assert run_job(jobs.verify.main, [f"{bucket}/shards"]) == EXIT_BAD_INPUT
    message = capfd.readouterr().err
    assert message.startswith("error: ")
    assert REFUSALS[name].message in message
    assert "Traceback" not in message
