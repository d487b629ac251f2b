"""The photos that five packages ship (scikit-image, scikit-learn, Matplotlib, Glymur, PyWavelets): real, and offline.

Held out are a cat, a temple, a cup, a brick wall and a portrait. Microscopy and astronomy, which the packages ship too,
are no use: their textures are nobody's photo. Glymur's is a phone's, of 2592x1456 px, and halved, which
averages out noise and compression.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.progress import say
from shards.errors import InputError

ROOT = Path("demo/photos")
TRAIN = ROOT / "train"
VALIDATION = ROOT / "validation"

_SCIKIT_IMAGE = ("skimage", "data")
_SCIKIT_LEARN = ("sklearn", "datasets/images")
_MATPLOTLIB = ("matplotlib", "mpl-data/sample_data")
_GLYMUR = ("glymur", "data")
_PYWAVELETS = ("pywt", "data")
_TRAIN_PHOTOS = {
    "aero.npz": _PYWAVELETS,
    "ascent.npz": _PYWAVELETS,
    "astronaut.png": _SCIKIT_IMAGE,
    "camera.png": _SCIKIT_IMAGE,
    "flower.jpg": _SCIKIT_LEARN,
    "grass.png": _SCIKIT_IMAGE,
    "gravel.png": _SCIKIT_IMAGE,
    "motorcycle_left.png": _SCIKIT_IMAGE,
    "motorcycle_right.png": _SCIKIT_IMAGE,
    "nemo.jp2": _GLYMUR,
    "rocket.jpg": _SCIKIT_IMAGE,
}
_VALIDATION_PHOTOS = {
    "brick.png": _SCIKIT_IMAGE,
    "chelsea.png": _SCIKIT_IMAGE,
    "china.jpg": _SCIKIT_LEARN,
    "coffee.png": _SCIKIT_IMAGE,
    "grace_hopper.jpg": _MATPLOTLIB,
}


def _halved(path: Path) -> Image.Image:
    with Image.open(path) as photo:
        return photo.convert("RGB").reduce(2)


def _of_array(path: Path) -> Image.Image:
    with np.load(path, allow_pickle=False) as arrays:
        return Image.fromarray(arrays["data"].astype(np.uint8))


_CONVERTED: dict[str, Callable[[Path], Image.Image]] = {".jp2": _halved, ".npz": _of_array}
"""How a photo is read that is not copied as it is, by the suffix of its file."""


def prepare_training_photos(sources: Sequence[Path]) -> None:
    """Copy the demo's training photos where a job is about to read them, and only there."""
    if TRAIN in sources:
        _copy(_TRAIN_PHOTOS, TRAIN)


def prepare_validation_photos(sets: Sequence[Path]) -> None:
    """Copy the held-out photos where a job is about to read them, and only there."""
    if VALIDATION in sets or VALIDATION / "HR" in sets:
        _copy(_VALIDATION_PHOTOS, VALIDATION / "HR")


def _copy(photos: dict[str, tuple[str, str]], folder: Path) -> None:
    targets = {name: folder / _saved_as(name) for name in photos}
    missing = [name for name, target in targets.items() if not target.is_file()]
    if not missing:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in missing:
            partial = folder / f".{name}.partial"
            source = _packaged(name, *photos[name])
            if convert := _CONVERTED.get(source.suffix):
                convert(source).save(partial, format="png")
            else:
                shutil.copyfile(source, partial)
            partial.replace(targets[name])
        say(f"copied {len(missing)} sample photos to {folder}")
    except OSError as error:
        raise InputError(
            f"the sample photos cannot be written to {folder}: {error.strerror or error}; "
            "run the demo in a folder where you have write permission"
        ) from error


def _saved_as(name: str) -> str:
    path = Path(name)
    return f"{path.stem}.png" if path.suffix in _CONVERTED else name


def _packaged(name: str, package: str, folder: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError(
            f"the sample photo {name} is part of {package}, which is not installed: pip install -e '.[demo]'"
        )
    path = Path(spec.origin).parent / folder / name
    if not path.is_file():
        raise InputError(f"{package} ships no {name} at {path}; install the versions in constraints.txt: make setup")
    return path
