"""Learned metrics on torchvision's ImageNet networks, whose weights are found, checked and loaded without a download.

A file is taken from torch's own cache (`TORCH_HOME`), where `--metrics NAME:download` puts it, or from a given path.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor, nn

from pipeline.errors import CheckpointError
from pipeline.metrics.metric import Metric
from pipeline.metrics.tensors import full_precision, metric_device, to_tensor
from pipeline.weights.files import read_weights
from pipeline.weights.strict import check_fit
from shards.errors import InputError
from shards.format.files import sha256_of
from shards.format.storage import parse_local_path

DOWNLOAD = "download"


@dataclass(frozen=True)
class Backbone:
    """A network of torchvision and the file of its weights.

    Attributes:
        name: In `torchvision.models`.
        file: As torchvision names it; its hex digits are the beginning of its SHA-256.
    """

    name: str
    file: str

    @property
    def url(self) -> str:
        """Where the file is published."""
        return f"https://download.pytorch.org/models/{self.file}"

    @property
    def cached(self) -> Path:
        """Where torchvision keeps the file after its own download."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file

    @property
    def sha256_prefix(self) -> str:
        """First eight digits of the published file's SHA-256."""
        return self.file.rpartition("-")[2].partition(".")[0]

    def missing(self) -> str | None:
        """Return the file and where it comes from; None where torch's cache holds it."""
        if self.cached.is_file():
            return None
        return f"{self.file} from {self.url} in {self.cached.parent}, or NAME:PATH with its path, or NAME:{DOWNLOAD}"

    def find(self, argument: str) -> Path:
        """Return the file that a metric's argument names, downloaded into torch's cache for "download".

        Raises:
            InputError: It is missing, or cannot be downloaded.
        """
        if argument != DOWNLOAD:
            path = parse_local_path(argument)
            if not path.is_file():
                raise InputError(f"no such file: {path}; give the path of {self.file} (from {self.url})")
            return path
        if not self.cached.is_file():
            self.cached.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(self.url, str(self.cached), self.sha256_prefix, progress=False)
            except (OSError, RuntimeError) as error:
                raise InputError(f"{self.url} cannot be downloaded: {error}; copy it to {self.cached}") from error
        return self.cached

    def features(self, path: Path) -> nn.Sequential:
        """Return the frozen convolutional part with the weights of a file, on the CPU.

        Raises:
            CheckpointError: The file is damaged, or of another network.
        """
        import torchvision

        if path == self.cached and not sha256_of(path).startswith(self.sha256_prefix):
            raise CheckpointError(f"{path} is damaged: its SHA-256 does not begin with {self.sha256_prefix}; delete it")
        with torch.device("meta"):  # no initialisation, which would draw from the global generator
            network = getattr(torchvision.models, self.name)(weights=None).features
        state = {name.removeprefix("features."): tensor for name, tensor in read_weights(path).items()}
        state = {name: tensor.float() for name, tensor in state.items() if not name.startswith("classifier.")}
        try:
            check_fit(network, state)
        except CheckpointError as error:
            raise CheckpointError(f"{path} is not {self.name} of torchvision: {error}") from error
        network.load_state_dict(state, assign=True)
        return network.requires_grad_(False).eval()


ALEXNET = Backbone("alexnet", "alexnet-owt-7be5be79.pth")
VGG16 = Backbone("vgg16", "vgg16-397923af.pth")


Distance = Callable[[Tensor, Tensor], Tensor]
Build = Callable[[nn.Sequential, torch.device], Distance]
"""Builds a library's layers on a backbone; returns the distance of two batches in [0, 1] on that device."""


def learned_metric(
    name: str, label: str, backbone: Backbone, build: Build, protocol: str, path: Path | None = None
) -> Metric:
    """Return a metric of torchmetrics on a backbone.

    Args:
        name: As users write it.
        label: As shown at the terminal.
        backbone: The network that computes the features.
        build: Builds the distance on the backbone.
        protocol: What is compared, up to the name of the weights.
        path: Of the backbone's weights; None: those of torchvision in torch's cache.
    """

    def measure(sr: UInt8[ndarray, "h w 3"], gt: UInt8[ndarray, "h w 3"], border_px: int) -> float:
        distance = _build(build, backbone, path or backbone.cached, metric_device())
        with full_precision():
            return float(distance(to_tensor(sr), to_tensor(gt)))

    return Metric(
        name=name,
        label=label,
        measure=measure,
        protocol=f"RGB of the rounded 8-bit image, whole image{protocol} {_which_weights(backbone, path)}",
        is_higher_better=False,
        kind="perceptual",
        weights=f"{backbone.file} (torchvision), NAME:PATH for another path; its own come with torchmetrics",
        smallest_side_px=32,
        missing=lambda: backbone.missing() if path is None else None,
        configure=lambda argument: learned_metric(name, label, backbone, build, protocol, backbone.find(argument)),
    )


@functools.lru_cache(maxsize=3)
def _build(build: Build, backbone: Backbone, path: Path, device: torch.device) -> Distance:
    return build(backbone.features(path), device)


def _which_weights(backbone: Backbone, path: Path | None) -> str:
    """Name the weights for a protocol: results with other weights than the published ones are not comparable."""
    if path is None or (digest := sha256_of(path)).startswith(backbone.sha256_prefix):
        return f"{backbone.name} of torchvision"
    return f"{backbone.name} with the weights {digest[:8]}, which are not torchvision's"


@contextlib.contextmanager
def substituted(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """Replace a function of a library that downloads weights, in this block; the global generator is left alone."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        setattr(module, name, original)
