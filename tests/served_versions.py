"""A registered version to upscale with, and pictures as a request has them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.inference.shipped import package
from pipeline.models.generators import CompactOptions, Generator, build_generator, save_generator
from pipeline.tracking import registry

NAME = "served"
URI = f"{registry.SCHEME}{NAME}/1"
SCALE = 2


def build_served() -> Generator:
    """A generator whose output leaves [0, 1] on both sides."""
    torch.manual_seed(3)
    network = build_generator(CompactOptions(scale=SCALE, num_features=4, num_blocks=1)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    return network


def register_served(folder: Path) -> None:
    """Register that generator in the store of the environment, with files in a folder."""
    generator = build_served()
    save_generator(folder / registry.WEIGHTS, generator)
    packed = package(generator, folder / registry.WEIGHTS, folder / "copied")
    assert registry.register(NAME, packed, {}, None, {}) == "1"


def encoded(picture: np.ndarray, file_format: str = "PNG", **options: Any) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, file_format, **options)
    return base64.b64encode(stream.getvalue()).decode()


def decoded(text: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert image.format == "PNG"
    return np.asarray(image)
