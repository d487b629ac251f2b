"""Apply drawn degradation parameters to batches of images, on their device.

    parameters = stack_parameters([draw_parameters(recipe, seed, ...) for seed in seeds])   # in the loader
    lq, gt, gt_sharp = degrade(hr, parameters.to(hr.device))                                # in the step

`shards.degradation.parameters` draws the parameters; `docs/degradations.md` describes them.
"""

from pipeline.degrade.augmentation import Augmentation, AugmentationBatch, TrainingImages, augment
from pipeline.degrade.chain import DegradedBatch, degrade
from pipeline.degrade.stack import DegradationBatch, stack_parameters

__all__ = [
    "Augmentation",
    "AugmentationBatch",
    "DegradationBatch",
    "DegradedBatch",
    "TrainingImages",
    "augment",
    "degrade",
    "stack_parameters",
]
