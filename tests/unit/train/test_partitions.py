"""How ZeRO stage 3 cuts a tensor over ranks."""

from __future__ import annotations

import pytest
import torch

from pipeline.runtime.trainable import own_part


@pytest.mark.parametrize(
    ("num_elements", "part_size", "parts"),
    [
        (6, 3, [[0, 1, 2], [3, 4, 5]]),
        (5, 3, [[0, 1, 2], [3, 4, -1]]),
        (1, 1, [[0], [-1]]),
        (4, 2, [[0, 1], [2, 3], [-1, -1]]),
    ],
)
def test_part_of_a_rank_is_its_share_padded_with_zeros(
    num_elements: int, part_size: int, parts: list[list[int]]
) -> None:
    value = torch.arange(1.0, num_elements + 1).view(1, -1)
    for rank, indices in enumerate(parts):
        assert own_part(value, part_size, rank).tolist() == [index + 1 for index in indices]
