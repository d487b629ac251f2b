"""A registered model as MLflow runs it where torch cannot export its network: this file beside its weights.

MLflow keeps the file's text with the version. It needs this package where it is served.
"""

from __future__ import annotations

from typing import Any

import mlflow.models
import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel


class ServedGenerator(PythonModel):
    """Upscales batches of RGB images in [0, 1], float32, (n, 3, h, w)."""

    def load_context(self, context: Any) -> None:
        """Load the weights of the version."""
        from pipeline.models.generators import load_generator

        self._generator = load_generator(context.artifacts["weights"])

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> Any:
        """Return the upscaled batch, an array."""
        with torch.inference_mode():
            return self._generator(torch.from_numpy(model_input)).numpy()


mlflow.models.set_model(ServedGenerator())
