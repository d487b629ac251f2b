"""A registered version as MLflow runs it: this file, beside the weights and the code that the version ships.

MLflow keeps the file's text with the version and executes that ("models from code"); nothing is unpickled. What it
computes is in the module that the version's settings name, of the version's own code.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel


class ServedGenerator(PythonModel):
    """Upscales arrays, or pictures as base64 text."""

    def load_context(self, context: Any) -> None:
        """Load the weights of the version."""
        settings = dict(context.model_config)
        entry = importlib.import_module(settings.pop("entry"))
        self._upscaler = entry.load(Path(context.artifacts["weights"]), **settings)

    # Texts too: MLflow shows a warning at every load where the type is missing or is not one of its own.
    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> Any:
        """Return what the entry's `predict` returns; `params` are its further arguments."""
        from shards.errors import InputError

        try:
            return self._upscaler.predict(model_input, **(params or {}))
        except InputError as error:  # a server responds with status 400 and its text, without a traceback
            raise MlflowException.invalid_parameter_value(str(error)) from error


mlflow.models.set_model(ServedGenerator())
