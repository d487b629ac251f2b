"""Bad input from a shell: `__main__` itself, and what people see."""

from __future__ import annotations

from pathlib import Path

from harness import assert_bad_input, job, run_command


def test_command_when_input_is_bad_ends_with_2_and_one_screen(here: Path) -> None:
    (here / "empty").mkdir()
    done = run_command(["python", job("shard.py"), "--source", "empty", "--exclude"], here)
    assert_bad_input(done, "error: --source empty holds no image")
    assert [path.name for path in here.iterdir()] == ["empty"]


def test_training_command_when_there_are_no_shards_ends_with_2_and_one_screen(here: Path) -> None:
    done = run_command(["python", job("train_sed.py"), "--run-dir", "run"], here)
    assert_bad_input(done, "no shards here yet: demo/shards does not exist", "python jobs/shard.py")
    assert list(here.iterdir()) == []
