"""Modes of a feature cache: what a stored feature is of, and what training takes from it. A cache names its mode.

A new one is a file here, which adds itself, and a line in the registry below.
"""

from pipeline.data.feature_modes.mode import FEATURE_MODES, FeatureMode

__all__ = ["FEATURE_MODES", "FeatureMode"]
