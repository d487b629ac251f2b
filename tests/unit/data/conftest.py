"""One tiny classical dataset for all tests of this folder; nobody writes to it."""

from __future__ import annotations

import pytest
from harness import prepare_tiny_data

from pipeline.config.schema import Preset


@pytest.fixture(scope="session")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    return prepare_tiny_data(tmp_path_factory.mktemp("tiny"))
