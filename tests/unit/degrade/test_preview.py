from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from harness import exit_code_of, write_shards
from PIL import Image

from jobs import preview
from jobs.terminal import EXIT_BAD_INPUT, EXIT_FAULTS
from pipeline.inference import tracked_run
from shards.config import ShardConfig
from shards.degradation.recipe import FOLDER


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of two real-world sub-images of 64 px."""
    photos, folder = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("shards")
    for number in range(2):
        coarse = np.random.RandomState(number).randint(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(coarse.repeat(8, 0).repeat(8, 1)).save(photos / f"{number}.png")
    config = ShardConfig((photos,), folder, "realworld", 4, 64, 64, variants=1, seed=5, shard_size_mib=1.0)
    write_shards(config)
    return folder


def _run(*arguments: object) -> int:
    return exit_code_of(preview.main, *arguments)


def test_preview_without_a_recipe_draws_that_of_the_shards(shards: Path, tmp_path: Path) -> None:
    assert _run(shards, "--output", tmp_path / "own.png") == 0
    assert _run(shards, "--recipe", "realesrgan-1", "--output", tmp_path / "named.png") == 0
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "named.png").read_bytes()


def test_preview_when_the_recipe_would_be_replaced_by_any_of_its_paths(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HERE", str(tmp_path))
    recipe = tmp_path / "mine.toml"
    recipe.write_text((FOLDER / "bicubic-1.toml").read_text().replace("bicubic-1", "mine"))
    (tmp_path / "link.png").symlink_to(recipe)
    before = recipe.read_bytes()
    options = ("--recipe", "$HERE/mine.toml", "--output", tmp_path / "link.png", "--overwrite")
    assert _run(shards, *options) == EXIT_BAD_INPUT
    assert "link.png would be replaced by its own output" in capsys.readouterr().err
    assert recipe.read_bytes() == before


@pytest.mark.parametrize("recipe", ["realesrgan-1", "bicubic-1"])
def test_preview_draws_a_row_a_sample_and_a_panel_a_variant(shards: Path, tmp_path: Path, recipe: str) -> None:
    output = tmp_path / "new" / "grid.png"
    options = ("--recipe", recipe, "--samples", 5, "--variants", 3, "--output", output)
    assert _run(shards, *options) == 0
    first = output.read_bytes()
    picture = np.asarray(Image.open(output))
    assert picture.shape[1] == 4 * 256 + 3 * 8
    # Two samples are all there are; HR is enlarged four times, without smoothing.
    assert picture.shape[0] > 2 * 256
    hr = picture[:256:4, :256:4]
    assert np.array_equal(picture[:256, :256], hr.repeat(4, 0).repeat(4, 1))
    panels = [picture[:256, 264 * k : 264 * k + 256] for k in range(1, 4)]
    assert all(np.array_equal(panel, panel[::16, ::16].repeat(16, 0).repeat(16, 1)) for panel in panels)
    assert np.array_equal(panels[0], panels[1]) == (recipe == "bicubic-1")
    assert _run(shards, *options) == 0
    assert output.read_bytes() == first


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--variants", 0), "--variants must be from 1 to 64; got 0"),
        (("--samples", -1), "--samples must be"),
        (("--canvas-px", 68), "--canvas-px must be a multiple of 4, at most 64; got 68; sample "),
        (("--canvas-px", 30), "--canvas-px must be a multiple of 4"),
        (("--recipe", "realesrgan-9"), "no recipe 'realesrgan-9'; known: bicubic-1"),
        (("--output", "grid.jpg"), "--output must end in .png; got grid.jpg"),
        (("--run", "nowhere"), "error: nowhere holds no checkpoint of a run in MLflow"),
    ],
)
def test_preview_of_bad_input_says_so_and_writes_nothing(
    shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[object, ...],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(shards, "--output", "grid.png", *options) == EXIT_BAD_INPUT
    captured = capsys.readouterr()
    assert text in " ".join((captured.out + captured.err).replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_preview_of_a_faulty_recipe_names_field_and_value(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'format = 1\nname = "mine-1"\n[end]\narea_probability = 0.5\nbilinear_probability = 0.4\n'
        "bicubic_probability = 0.0\nmatlab_bicubic_probability = 0.0\n",
        encoding="utf-8",
    )
    assert _run(shards, "--recipe", recipe, "--output", tmp_path / "grid.png") == EXIT_BAD_INPUT
    assert "must be 1 in sum; got 0.9" in capsys.readouterr().err


def test_preview_of_a_folder_without_shards_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(tmp_path, "--output", tmp_path / "grid.png") == EXIT_BAD_INPUT
    assert str(tmp_path) in capsys.readouterr().err


class _Tracker:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def picture(self, name: str, image: np.ndarray, images_seen: int) -> None:
        self.calls.append((name, image.shape, images_seen))


@pytest.fixture
def run_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that stands at 40 of 80 images and is known to MLflow as `abc`."""
    store = SimpleNamespace(newest=lambda: SimpleNamespace(facts={"mlflow_run_id": "abc"}, images_seen=40))
    monkeypatch.setattr(tracked_run, "CheckpointStore", lambda *_, **__: store)


@pytest.mark.usefixtures("run_folder")
def test_preview_with_a_run_logs_the_picture_there(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = _Tracker()
    opened: list[str] = []
    monkeypatch.setattr(tracked_run, "open_existing", lambda run_id: opened.append(run_id) or tracker)
    output = tmp_path / "grid.png"
    assert _run(shards, "--output", output, "--run", tmp_path) == 0
    assert opened == ["abc"]
    shape = np.asarray(Image.open(output)).shape
    assert tracker.calls == [("degradation/realesrgan-1", shape, 40)]


@pytest.mark.usefixtures("run_folder")
def test_preview_with_a_run_that_mlflow_does_not_have_ends_with_a_fault(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none.db'}")
    output = tmp_path / "grid.png"
    assert _run(shards, "--output", output, "--run", tmp_path) == EXIT_FAULTS
    assert f"not in MLflow: no database {tmp_path / 'none.db'}; check MLFLOW_TRACKING_URI" in capsys.readouterr().err
    assert output.is_file()
    assert not (tmp_path / "none.db").exists()
