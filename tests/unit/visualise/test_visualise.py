"""What the job shows of runs of every kind, what it says of what it cannot show, and that it is the same every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import model_file, photo, write_photos
from PIL import Image
from safetensors.torch import load_file, save_file
from untrained_runs import write_run

from pipeline.inference.visualise.features import (
    OWN,
    SHUFFLED,
    ZEROS,
    classed_crops,
    features_by_condition,
    other_photos,
)
from pipeline.inference.visualise.opened import open_run
from pipeline.inference.visualise.photos import Photo
from pipeline.weights.files import read_metadata

Visualise = Callable[..., int]
PICTURES = ["discriminator_attention.png", "discriminator_decisions.png", "discriminator_features.png"]
FEATURES = {
    "adversarial_weight": 0.1,
    "network": {
        "architecture": "features",
        "backbone": "timm:tf_efficientnet_lite0",
        "layers": [2],
        "weights": "random",
        "num_features": 4,
    },
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def document(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "visualise.json").read_bytes())


def test_semantic_run_has_every_picture_and_the_same_bytes_for_a_seed(
    visualise: Visualise, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", **{"discriminator.residual": True})
    assert visualise("run", "--seed", 1) == 1  # one photo is too small
    captured = capsys.readouterr()
    assert "photo0.png: 60x40 px are too few for one crop of data.crop_px=48" in captured.err
    assert "semantics - zeros" in captured.out
    output = tmp_path / "run" / "visualised"
    assert names(output) == [*PICTURES, "visualise.json"]
    assert all(min(Image.open(output / name).size) > 500 for name in PICTURES)
    first = {path.name: path.read_bytes() for path in output.iterdir()}
    assert visualise("run", "--seed", 1) == 1  # own files are replaced
    assert {path.name: path.read_bytes() for path in output.iterdir()} == first
    assert visualise("run", "--seed", 2) == 1
    assert (output / PICTURES[2]).read_bytes() != first[PICTURES[2]]
    assert (output / PICTURES[1]).read_bytes() == first[PICTURES[1]]
    numbers = document(output)["discriminators"]["discriminator"]
    assert list(numbers["features"]["purity"]) == [OWN, ZEROS, SHUFFLED]
    assert set(numbers["decisions"]["photos"]) == {"photos/photo1", "photos/photo2"}
    assert set(numbers["decisions"]["hr_above_sr"]) == {"photos/photo1", "photos/photo2"}
    assert len(numbers["attention"]["queries"]) == 2


def test_discriminator_without_finite_logits_is_refused_and_nothing_is_written(
    visualise: Visualise, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_run(tmp_path / "run").discriminator()
    state = {name: torch.full_like(value, torch.nan) for name, value in load_file(file).items()}
    save_file(state, file, read_metadata(file))
    assert visualise("run") == 2
    assert "discriminator.safetensors: its logits are NaN or infinite" in capsys.readouterr().err
    assert not (tmp_path / "run" / "visualised").exists()


def test_features_with_the_semantics_of_another_photo_differ(tmp_path: Path) -> None:
    write_run(tmp_path / "run", **{"discriminator.residual": True})
    run = open_run(tmp_path / "run", torch.device("cpu"), wants_classes=True)
    assert run.extractor is not None
    shown = [Photo(str(seed), *[photo(seed, 96, 50 + 48 * seed)] * 3) for seed in range(2)]
    crops = classed_crops(shown, run.extractor, 48, num_classes=2, num_cells=40, seed=0)
    assert crops.photo.tolist() == [0, 0, 1, 1, 1, 1]
    assert [crops.photo[at] for at in other_photos(crops.photo)] == [1, 1, 0, 0, 0, 0]
    features = features_by_condition(run, "discriminator", crops)
    assert {each.shape for each in features.values()} == {(len(crops.chosen), 64)}
    assert np.abs(features[OWN] - features[SHUFFLED]).max() > 1e-3
    assert np.abs(features[OWN] - features[ZEROS]).max() > 1e-3
    assert np.bincount(crops.photo[crops.crop_of_chosen]).tolist() == [18, 20]


def test_plain_run_has_decisions_and_one_plane_and_says_so(
    visualise: Visualise, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", **{"discriminator.semantic": False})
    visualise("run", "--output", "out")
    assert names(tmp_path / "out") == [*PICTURES[1:], "visualise.json"]
    assert "attention not shown: it is not semantic-aware" in capsys.readouterr().err
    numbers = document(tmp_path / "out")["discriminators"]["discriminator"]
    assert list(numbers["features"]["purity"]) == ["plain"]
    assert "not semantic-aware" in numbers["attention"]["not_shown"]


def test_plain_run_without_a_vision_model_has_decisions_and_says_why(
    visualise: Visualise, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"discriminator.semantic": False, "semantics.weights": str(tmp_path / "none.pt")}
    write_run(tmp_path / "run", **changes)
    visualise("run", "--output", "out")
    assert names(tmp_path / "out") == [PICTURES[1], "visualise.json"]
    said = capsys.readouterr().err
    assert "features not shown: their classes need the frozen vision model of the run's configuration" in said
    assert "none.pt" in said


def test_other_run_is_shown_beside(visualise: Visualise, tmp_path: Path) -> None:
    write_run(tmp_path / "run", **{"discriminator.residual": True})
    write_run(tmp_path / "plain", **{"discriminator.semantic": False})
    visualise("run", "--against", "plain", "--output", "out")
    found = document(tmp_path / "out")["discriminators"]["discriminator"]["features"]
    assert list(found["purity"]) == [OWN, ZEROS, SHUFFLED, "of plain"]
    assert set(found["difference_to"]) == {ZEROS, SHUFFLED, "of plain"}


def test_each_of_several_discriminators_has_its_files(
    visualise: Visualise, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = {"adversarial_weight": 0.1, "network": {"architecture": "image", "semantic": False, "num_features": 4}}
    write_run(tmp_path / "run", further_discriminators=[FEATURES, image])
    visualise("run", "--output", "out")
    expected = [*PICTURES, "discriminator_2_decisions.png"]
    expected += [f"discriminator_3_{kind}.png" for kind in ("decisions", "features")]
    assert names(tmp_path / "out") == sorted([*expected, "visualise.json"])
    assert "discriminator_2: features not shown: the features discriminator has no" in capsys.readouterr().err


def test_chosen_points_are_the_queries(visualise: Visualise, tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    visualise("run", "--output", "out", "--query-photo", "photo1", "--queries", "0,0", "147,99", "50%,50%")
    queries = document(tmp_path / "out")["discriminators"]["discriminator"]["attention"]["queries"]
    assert [query["crop_px"] for query in queries] == [[0, 0, 48], [100, 52, 48], [50, 26, 48]]
    assert [query["cell"] for query in queries] == [[0, 0], [2, 2], [1, 1]]
    assert {query["photo"] for query in queries} == {"photos/photo1"}


def test_queried_photo_is_always_among_those_shown(visualise: Visualise, tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    visualise("run", "--output", "out", "--photos", 1, "--query-photo", "photos/photo2", "--queries", "50%,50%")
    assert document(tmp_path / "out")["photos"] == ["photos/photo2"]


def test_one_photo_has_no_features(visualise: Visualise, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run")
    write_photos(tmp_path / "one" / "HR", [(64, 64)])
    assert visualise("run", "--output", "out", "--sets", "one") == 0
    assert "features are compared between photos, and there is one" in capsys.readouterr().err


def no_export(tmp_path: Path) -> None:
    write_run(tmp_path / "run").discriminator().unlink()


def no_adversary(tmp_path: Path) -> None:
    write_run(tmp_path / "run", **{"losses.adversarial_weight": 0.0})


def small_photos(tmp_path: Path) -> None:
    write_run(tmp_path / "run", **{"data.crop_px": 160, "data.canvas_px": 160})


def not_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()


def a_file(tmp_path: Path) -> None:
    model_file(tmp_path / "run")


def somebodys_picture(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    write_photos(tmp_path / "out", [(8, 8)])
    (tmp_path / "out" / "photo0.png").rename(tmp_path / "out" / PICTURES[0])


def a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("prepare", "arguments", "text"),
    [
        (no_export, [], "run has no discriminator to show: no export/discriminator.safetensors, which a run writes"),
        (no_adversary, [], "run has no discriminator to show: the run trains no discriminator"),
        (small_photos, [], "no photo of the sets can be shown"),
        (small_photos, [], "100x120 px are too few for one crop of data.crop_px=160"),
        (not_a_run, [], "run is no run folder: no config.json in it"),
        (a_file, [], "run is the weights of one network; name the folder of its run"),
        (somebodys_picture, ["--output", "out"], "attention.png exists and is not an output of this job; --overwrite"),
        (a_run, ["--against", "none"], "none is no run folder: no config.json in it"),
        (a_run, ["--queries", "3"], "such as 120,80 or 25%,50%; got '3'"),
        (a_run, ["--queries", "150,300"], "--queries 150,300 is outside of the photo, which has 148x100 px"),
        (a_run, ["--query-photo", "cat", "--queries", "1,1"], "--query-photo cat is no photo of the sets"),
        (a_run, ["--query-photo", "phot1", "--queries", "1,1"], "did you mean photo1"),
        (a_run, ["--query-photo", "photo0", "--queries", "1,1"], "photo0 cannot be used; name one of photos/photo1"),
        (a_run, ["--output", "run/config.json"], "cannot write to the output folder"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    visualise: Visualise,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Path], None],
    arguments: list[str],
    text: str,
) -> None:
    prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert visualise("run", *arguments) == 2
    assert text in " ".join(capsys.readouterr().err.split())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--photos", "0"], "--photos must be at least 1"),
        (["--classes", "11"], "--classes must be from 2 to 10; got 11"),
        (["--cells", "15"], "--cells must be at least 16; got 15"),
        (["--photos", "20", "--cells", "19"], "--cells must be at least --photos, a cell of each; got 19 and 20"),
        (["--query-photo", "photo1"], "--query-photo needs --queries"),
        (["--seed", "-1"], "--seed must be at least 0; got -1"),
    ],
)
def test_number_when_out_of_range_is_refused(
    visualise: Visualise, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert visualise("run", *arguments) == 2
    assert text in " ".join(capsys.readouterr().err.replace("│", " ").split())
