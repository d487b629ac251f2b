"""What a registered version ships is enough: it loads where this project is not installed, and holds no pickle."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import ROOT, photo
from served_versions import SCALE, URI, build_served

from pipeline.inference.upscale import upscale
from pipeline.tracking import registry


def model_folder() -> Path:
    return registry.fetch(URI).parents[1]


def upscale_elsewhere(model: Path, lq: np.ndarray, folder: Path) -> np.ndarray:
    np.save(folder / "lq.npy", lq)
    command = [sys.executable, "-I", str(ROOT / "tests" / "upscale_elsewhere.py"), str(model), "lq.npy", "sr.npy"]
    environment = {
        "PATH": os.environ["PATH"],
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "sr.npy")


def test_version_loads_without_the_project_and_with_no_library_but_its_requirements(
    served_folder: Path, tmp_path: Path
) -> None:
    lq = photo(0, 13, 19)
    assert np.array_equal(upscale_elsewhere(model_folder(), lq, tmp_path), upscale(build_served(), lq, SCALE))


# Registers the generator that a module builds, and writes what it computes.
REGISTER = """
import sys
from pathlib import Path

sys.path[:0] = [".", sys.argv[1]]
import numpy as np
import torch
import networks

from pipeline.inference.shipped import package
from pipeline.inference.upscale import upscale
from pipeline.models.generators import save_generator
from pipeline.tracking import registry

torch.manual_seed(0)
generator = networks.build().eval()
save_generator("generator.safetensors", generator)
registry.register("other", package(generator, Path("generator.safetensors").resolve(), Path("copied")), {}, None, {})
np.save("expected.npy", upscale(generator, np.load("lq.npy"), generator.scale))
print(registry.fetch("models:/other/1").parents[1])
"""

SPANDREL = """
from spandrel_sizes import small_options

from pipeline.models.generators import build_generator

def build():
    return build_generator(small_options("ATD"))
"""

SEMANTIC_COMPACT = """
from pipeline.models.generators import SemanticCompactOptions, build_generator

def build():
    return build_generator(
        SemanticCompactOptions(
            scale=4, num_features=4, num_blocks=1, semantics="open_clip:RN50", semantics_layer=1,
            semantics_weights="random",
        )
    )
"""

TOY = """
from toy.generator import ToyGenerator

def build():
    return ToyGenerator(4, 4)
"""


@pytest.mark.slow
@pytest.mark.parametrize("networks", [SPANDREL, SEMANTIC_COMPACT, TOY], ids=["spandrel", "semantic_compact", "toy"])
def test_version_ships_what_its_network_needs(empty_database: Path, tmp_path: Path, networks: str) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_database.read_bytes())
    (tmp_path / "networks.py").write_text(networks)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "__init__.py").write_text("")
    block = re.search(
        r"# toy/generator.py\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert block is not None
    (tmp_path / "toy" / "generator.py").write_text(block[1])
    np.save(tmp_path / "lq.npy", photo(0, 20, 24))
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    command = [sys.executable, "-c", REGISTER, str(ROOT / "tests")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    sr = upscale_elsewhere(Path(done.stdout.splitlines()[-1]), photo(0, 20, 24), elsewhere)
    assert np.array_equal(sr, np.load(tmp_path / "expected.npy"))


def test_version_holds_no_pickle_and_pins_what_it_requires(served_folder: Path) -> None:
    files = [path for path in model_folder().rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path.suffix for path in files} <= {"", ".py", ".md", ".json", ".yaml", ".txt", ".safetensors"}
    lines = (model_folder() / "requirements.txt").read_text().split()
    names = {line.partition("==")[0] for line in lines}
    assert all("==" in line and "+" not in line for line in lines)
    assert {"mlflow", "torch", "numpy", "pillow", "safetensors"} <= names
    assert not names & {"isal", "spandrel", "accelerate", "ray", "timm", "sed-trainer"}
    code = [path for path in files if path.suffix == ".py"]
    assert sum(path.stat().st_size for path in code) < 1_000_000
    assert not any("discriminator" in path.name for path in code)
