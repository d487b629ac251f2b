"""Applications of drawn steps, by name; `shards/degradation/operations/` draws what they apply."""

from pipeline.degrade.operations.blur import BLUR
from pipeline.degrade.operations.jpeg import JPEG
from pipeline.degrade.operations.noise import NOISE
from pipeline.degrade.operations.resize import RESIZE
from pipeline.degrade.step_batch import Application
from pipeline.registry import Registry

APPLICATIONS: Registry[Application] = Registry("application of a degradation step", [BLUR, RESIZE, NOISE, JPEG])

__all__ = ["APPLICATIONS"]
