"""Small hyperparameters for every architecture of spandrel that is tested, at any scale."""

from __future__ import annotations

from typing import Any

from pipeline.models.generators import GeneratorName, SpandrelOptions

SMALL: dict[str, dict[str, Any]] = {
    "ATD": {"embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 8},
    "DAT": {"embed_dim": 32, "depth": [2], "num_heads": [2]},
    "DITN": {"dim": 16, "ITL_blocks": 1, "SAL_blocks": 1},
    "DRCT": {"embed_dim": 16, "depths": [6], "num_heads": [2], "gc": 8, "window_size": 8},
    "GRL": {"embed_dim": 16, "depths": [2], "num_heads_window": [2], "num_heads_stripe": [2], "mlp_ratio": 2},
    "HAT": {"embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 8, "squeeze_factor": 4},
    "MoSR": {"dim": 16, "n_block": 2},
    "OmniSR": {"num_feat": 16},
    "RCAN": {"n_resgroups": 2, "n_resblocks": 2, "n_feats": 16, "reduction": 4},
    "RGT": {"embed_dim": 32, "depth": [2], "num_heads": [2]},
    "RealPLKSR": {"dim": 16, "n_blocks": 2, "kernel_size": 5},
    "SAFMN": {"dim": 16, "n_blocks": 2},
    "SPAN": {"feature_channels": 16},
}


def small_options(name: str, scale: int = 4, **changes: Any) -> SpandrelOptions:
    """Options of a small network; `changes` are hyperparameters."""
    return SpandrelOptions(
        architecture=GeneratorName(f"spandrel:{name}"), scale=scale, hyperparameters=SMALL[name] | changes
    )
