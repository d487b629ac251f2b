"""Trains the extractor of the generated photos: a small residual network that learns which shape is where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.experiments.shapes.drawing import KINDS, draw
from pipeline.models.grid import SEMANTIC_STRIDE_PX
from pipeline.models.semantics.extractor import open_vision_model
from pipeline.progress import Progress
from pipeline.weights.files import write_weights

ARCHITECTURE = "timm:test_resnet"
LAYER = 3
_NUM_DRAWINGS = 400
NUM_STEPS = 1_500
_BATCH = 8
_LEARNING_RATE = 2e-3


def train_extractor(path: Path, first_seed: int, seed: int = 0, num_steps: int = NUM_STEPS) -> float:
    """Train on drawings that no other part of the experiment sees, and write the whole network's weights.

    Args:
        path: File to write, as `semantics.weights` reads it.
        first_seed: Of the drawings, which are one after another.
        seed: Of the initial weights.
        num_steps: Of training.

    Returns:
        The fraction of the grid's cells that it names right, of drawings that it was not trained on.
    """
    torch.manual_seed(seed)
    model = open_vision_model(ARCHITECTURE)
    network = model.build_on("cpu").train()
    head = nn.LazyConv2d(len(KINDS) + 1, 1)

    def logits_of(images: Tensor) -> Tensor:
        preprocessing = model.preprocessing
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        (features,) = model.maps_of(network, (images - mean) / std, (LAYER,))
        return head(features)

    photos, kinds = _drawings(range(first_seed, first_seed + _NUM_DRAWINGS))
    logits_of(photos[:1])  # the head learns its number of channels
    optimizer = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    with Progress("training the extractor", num_steps, "steps") as bar:
        for _ in range(num_steps):
            some = torch.randint(len(photos), (_BATCH,))
            optimizer.zero_grad()
            F.cross_entropy(logits_of(photos[some]), kinds[some]).backward()
            optimizer.step()
            schedule.step()
            bar.advance(1)
    network.eval()
    after = first_seed + _NUM_DRAWINGS
    photos, kinds = _drawings(range(after, after + _NUM_DRAWINGS // 10))
    with torch.no_grad():
        accuracy = float((logits_of(photos).argmax(dim=1) == kinds).float().mean())
    write_weights(path, network.state_dict(), {})
    return accuracy


def _drawings(seeds: range) -> tuple[Tensor, Tensor]:
    """Return drawings and, for each cell of the grid, the shape that takes most of it; 0 where there is none."""
    drawings = [draw(seed) for seed in seeds]
    photos = torch.from_numpy(np.stack([one.photo for one in drawings])).permute(0, 3, 1, 2).float() / 255
    kinds = torch.from_numpy(np.stack([one.kinds for one in drawings]))
    areas = F.avg_pool2d(F.one_hot(kinds, len(KINDS) + 1).permute(0, 3, 1, 2).float(), SEMANTIC_STRIDE_PX)
    shapes = areas[:, 1:].max(dim=1)
    return photos, torch.where(shapes.values > 0, shapes.indices + 1, 0)
