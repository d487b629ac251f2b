"""The document of an experiment of two arms and two seeds."""

from __future__ import annotations

from typing import Any

DOCUMENT: dict[str, Any] = {
    "title": "t",
    "question": "q",
    "baseline": "plain",
    "primary": "psnr_y",
    "margin": 0.1,
    "metrics": ["psnr_y"],
    "seeds": [1, 2],
    "budgets": {"cpu": {"preset": "demo", "start": "demo_psnr"}},
    "arms": {
        "plain": {"title": "P", "train": {"discriminator": {"semantic": False, "residual": False}}},
        "sed": {"title": "P+SeD"},
    },
}
