"""A registered version as others use it: arrays and pictures, over HTTP, and where this project is not installed."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
import torch
from harness import ROOT
from mlflow.exceptions import MlflowException
from PIL import Image

from pipeline.inference.shipped import package
from pipeline.inference.upscale import upscale
from pipeline.models.generators import CompactOptions, Generator, build_generator, save_generator
from pipeline.tracking import registry

NAME = "served"
URI = f"{registry.SCHEME}{NAME}/1"
SCALE = 2


@pytest.fixture(scope="module")
def generator() -> Generator:
    """A generator whose output leaves [0, 1] on both sides."""
    torch.manual_seed(3)
    network = build_generator(CompactOptions(scale=SCALE, num_features=4, num_blocks=1)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    return network


@pytest.fixture(scope="module")
def folder(empty_database: Path, generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder whose registry has one version."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    save_generator(folder / registry.WEIGHTS, generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
        packed = package(generator, folder / registry.WEIGHTS, folder / "copied")
        assert registry.register(NAME, packed, {}, None, {}) == "1"
        yield folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Any:
    entries = list(sys.path)
    model = mlflow.pyfunc.load_model(URI)
    sys.path[:] = entries
    return model


def photo(height_px: int, width_px: int, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height_px, width_px, 3), np.uint8)


def encoded(picture: np.ndarray, file_format: str = "PNG", **options: Any) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, file_format, **options)
    return base64.b64encode(stream.getvalue()).decode()


def decoded(text: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    assert image.format == "PNG"
    return np.asarray(image)


def test_8_bit_images_come_back_as_8_bits_rounded_and_clamped(served: Any, generator: Generator) -> None:
    images = np.stack([photo(13, 19, 1), photo(13, 19, 2)])
    sr = served.predict(images)
    with torch.inference_mode():
        plain = generator(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    assert plain.min() < 0 or plain.max() > 1
    assert sr.dtype == np.uint8
    assert np.array_equal(sr, (plain.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    assert np.array_equal(served.predict(images[0]), sr[0])
    assert np.array_equal(served.predict(images.astype(np.int64)), sr)  # JSON's integers


def test_floats_come_back_as_floats_within_0_and_1_in_the_layout_given(served: Any, generator: Generator) -> None:
    images = photo(11, 7)[None].astype(np.float32) / 255
    channels_first = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    with torch.inference_mode():
        expected = generator(torch.from_numpy(channels_first)).clamp(0, 1).numpy()
    sr = served.predict(channels_first)
    assert sr.dtype == np.float32
    assert np.array_equal(sr, expected)
    assert np.array_equal(served.predict(images), np.moveaxis(expected, 1, -1))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: pd.DataFrame({"image": [text]}),
        lambda text: {"image": [text]},
        lambda text: {"image": np.array(text)},
        lambda text: [text],
        lambda text: text,
        lambda text: "data:image/png;base64," + text,
        lambda text: "\n".join([text[:76], text[76:]]),
    ],
)
def test_picture_as_text_comes_back_as_png(served: Any, generator: Generator, wrap: Any) -> None:
    lq = photo(9, 14)
    (answer,) = served.predict(wrap(encoded(lq)))
    assert np.array_equal(decoded(answer["image"]), upscale(generator, lq, SCALE))


def test_tiles_give_the_same_picture_and_their_size_is_a_parameter(served: Any, generator: Generator) -> None:
    lq = photo(70, 90)
    whole, tiled = served.predict(lq), served.predict(lq, params={"tile_px": 32})
    assert np.array_equal(whole, upscale(generator, lq, SCALE))
    assert np.array_equal(tiled, upscale(generator, lq, SCALE, tile_px=32, overlap_px=16))
    assert int(np.abs(tiled.astype(int) - whole).max()) <= 1
    with pytest.raises(MlflowException, match="tile_px=0 must be at least 1"):
        served.predict(lq, params={"tile_px": 0})


@pytest.mark.parametrize(("file_format", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_other_formats_are_read(served: Any, file_format: str, options: dict[str, Any]) -> None:
    (answer,) = served.predict([encoded(photo(8, 8), file_format, **options)])
    assert decoded(answer["image"]).shape == (8 * SCALE, 8 * SCALE, 3)


@pytest.mark.parametrize(("data", "message"), [
    (np.zeros((4, 4), np.uint8), r"an array of shape \(4, 4\) is no RGB image; give n x height x width x 3"),
    (np.zeros((1, 3, 4, 4), np.uint8), r"shape \(1, 3, 4, 4\) is no RGB image"),
    (np.zeros((0, 4, 4, 3), np.uint8), r"shape \(0, 4, 4, 3\) is no RGB image"),
    (np.full((4, 4, 3), 255.0), r"reach from 255 to 255; give floats in \[0, 1\]"),
    (np.full((4, 4, 3), np.nan), r"give floats in \[0, 1\]"),
    (np.full((4, 4, 3), 300), r"reach from 300 to 300; give integers in 0\.\.255"),
    ({"picture": ["AAAA"]}, "the request has 'picture', and no 'image'"),
    ({"image": []}, "holds no image"),
    (["no base64!"], "image 1 is not base64 text .it begins with 'no base64!'"),
    ([base64.b64encode(b"no picture at all").decode()], "image 1 cannot be used: not-an-image"),
    ([encoded(photo(8, 8))[:-40]], "image 1 (cannot be used: truncated|is not base64)"),
    ([7], "image 1 is int, not text"),
])  # fmt: skip
def test_what_is_no_image_is_refused_with_what_to_give(served: Any, data: Any, message: str) -> None:
    with pytest.raises(MlflowException, match=message) as caught:
        served.predict(data)
    assert caught.value.get_http_status_code() == 400
    assert "Traceback" not in caught.value.serialize_as_json()


def test_picture_larger_than_the_limit_is_refused_and_the_limit_is_a_setting(folder: Path) -> None:
    entries = list(sys.path)
    small = mlflow.pyfunc.load_model(URI, model_config={"max_pixels": 100})
    sys.path[:] = entries
    with pytest.raises(MlflowException, match="too-large"):
        small.predict([encoded(photo(11, 10))])


# Runs where neither the project nor a library that the requirements do not bring can be imported.
ELSEWHERE = """
import re
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

model, data, output = sys.argv[1:]
pending = [line for line in (Path(model) / "requirements.txt").read_text().split()]
allowed = set()
while pending:
    name = re.match(r"[\\w.-]+", pending.pop())[0].lower().replace("_", "-")
    if name not in allowed:
        allowed.add(name)
        try:
            found = distribution(name).requires or []
        except PackageNotFoundError:  # an optional one of a library
            continue
        pending += [line for line in found if "extra ==" not in line]
brought = {name: owners for name, owners in packages_distributions().items()}
forbidden = {
    name for name, owners in brought.items()
    if not {owner.lower().replace("_", "-").replace(".", "-") for owner in owners} & allowed
} | {"jobs", "tests", "harness"}


class Requirements:
    find_distributions = PathFinder.find_distributions

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in forbidden - {"pipeline", "shards"}:
            return None
        return PathFinder.find_spec(name, path, target)


# Without the finder of the editable installation, too.
sys.meta_path = [BuiltinImporter, FrozenImporter, Requirements]
for name in ("pipeline", "shards"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} can be imported from {sys.modules[name].__file__}")
assert {"accelerate", "ray"} <= forbidden, sorted(forbidden)

import numpy as np
import mlflow.pyfunc

upscaled = mlflow.pyfunc.load_model(model).predict(np.load(data))
np.save(output, upscaled)
for name in ("pipeline", "shards"):
    assert Path(sys.modules[name].__file__).is_relative_to(model), sys.modules[name].__file__
"""


def model_folder(uri: str = URI) -> Path:
    return registry.fetch(uri).parents[1]


def upscale_elsewhere(model: Path, lq: np.ndarray, folder: Path) -> np.ndarray:
    np.save(folder / "lq.npy", lq)
    command = [sys.executable, "-I", "-c", ELSEWHERE, str(model), "lq.npy", "sr.npy"]
    environment = {
        "PATH": os.environ["PATH"],
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "sr.npy")


def test_version_loads_without_the_project_and_with_no_library_but_its_requirements(
    folder: Path, generator: Generator, tmp_path: Path
) -> None:
    lq = photo(13, 19)
    assert np.array_equal(upscale_elsewhere(model_folder(), lq, tmp_path), upscale(generator, lq, SCALE))


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
    np.save(tmp_path / "lq.npy", photo(20, 24))
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    command = [sys.executable, "-c", REGISTER, str(ROOT / "tests")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    sr = upscale_elsewhere(Path(done.stdout.splitlines()[-1]), photo(20, 24), elsewhere)
    assert np.array_equal(sr, np.load(tmp_path / "expected.npy"))


def test_version_holds_no_pickle_and_pins_what_it_requires(folder: Path) -> None:
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(url: str, body: Any) -> tuple[int, Any]:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"nothing answers at {url}")


def test_version_answers_over_http(folder: Path, generator: Generator) -> None:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", URI, "--env-manager", "local"]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/ping", server)
        url, lq = f"http://127.0.0.1:{port}/invocations", photo(40, 70)
        expected = upscale(generator, lq, SCALE)
        text = encoded(lq)
        for body in (
            {"inputs": {"image": [text]}},
            {"dataframe_records": [{"image": text}]},
            {"inputs": [text], "params": {"tile_px": 512}},
        ):
            status, answer = post(url, body)
            assert status == 200, answer
            assert np.array_equal(decoded(answer["predictions"][0]["image"]), expected)
        status, answer = post(url, {"inputs": lq[:3, :4].tolist()})
        assert status == 200
        assert np.array_equal(np.array(answer["predictions"]), upscale(generator, lq[:3, :4], SCALE))
        for body in ({"inputs": ["no image"]}, {"inputs": {"other": [text]}}, {"inputs": [[1, 2], [3, 4]]}):
            status, answer = post(url, body)
            assert status == 400
            assert "give" in answer["message"] or "encode" in answer["message"]
            assert "Traceback" not in json.dumps(answer)
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
