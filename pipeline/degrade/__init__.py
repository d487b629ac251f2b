"""Apply drawn degradation parameters to batches of images, on their device.

    parameters = stack_parameters([draw_parameters(recipe, seed, ...) for seed in seeds])   # in the loader
    lq, gt, target = degrade(hr, parameters.to(hr.device))                                # in the step

`shards.degradation.parameters` draws the parameters; `docs/degradations.md` describes them.
"""

from pipeline.degrade.augmentation import Augmentation, AugmentationBatch, augment, of_partners
from pipeline.degrade.chain import TrainingImages, degrade
from pipeline.degrade.stack import DegradationBatch, stack_parameters

__all__ = [
    "Augmentation",
    "AugmentationBatch",
    "DegradationBatch",
    "TrainingImages",
    "augment",
    "degrade",
    "of_partners",
    "stack_parameters",
]
