"""How fast is a degraded batch, against `feed_data` of Real-ESRGAN with BasicSR's functions?

Both sides turn the same 400-px images into aligned crops of 256 px and their 64-px low-quality images, in one
process, alternating, each batch with new draws, so that a busy machine slows both. The reference runs as it is in
its own checkout, pool included, with the settings of its own option file; packages that it imports and this path
does not use are left out. Kernels are drawn beforehand for the reference, as its loader does; ours pays for drawing
and stacking its parameters. Peak memory of ours is read in a process of its own for each size of batch.

Run:
    git clone https://github.com/XPixelGroup/BasicSR /tmp/BasicSR
    git clone https://github.com/xinntao/Real-ESRGAN /tmp/Real-ESRGAN
    python benchmarks/degradation.py --reference /tmp/BasicSR --model /tmp/Real-ESRGAN
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import multiprocessing
import multiprocessing.connection
import os
import random
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch is loaded: threads that spin while they wait take the cores that others on a busy machine need.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import yaml
from _measure import import_script
from _origin import add_json_argument, extremes, publish, speed_up
from _tables import Row, label, mib, ratio, row_of, seconds
from skimage import data as photos
from torch import Tensor

from pipeline.degrade import degrade, stack_parameters
from pipeline.degrade.kernels import blur_kernels
from shards.degradation.draws import variant_seed
from shards.degradation.operations.blur import Blur
from shards.degradation.parameters import SampleParameters, draw_parameters
from shards.degradation.recipe import load_recipe

SCALE, CANVAS_PX, CROP_PX = 4, 400, 256
WAYS = ("reference", "ours", "ours, float32")
TIMES = (label("side"), seconds("s per batch"), ratio("speed-up", form=".1f"), ratio("speed-up by sums", form=".1f"))
PEAKS = (label("batch"), mib("peak MiB above an idle process"))
Degrade = Callable[[int], tuple[Tensor, Tensor]]
"""Number of the batch to (lq, gt)."""


def canvases(num: int) -> Tensor:
    """Cut (num, 3, 400, 400) from real photos, in [0, 1]."""
    sources = [photos.astronaut(), photos.coffee(), photos.stereo_motorcycle()[0], photos.immunohistochemistry()]
    cut = [sources[k % len(sources)][:CANVAS_PX, k % 5 * 20 :][:, :CANVAS_PX] for k in range(num)]
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).float().div(255).contiguous()


def draw(batch: int, num: int) -> list[SampleParameters]:
    """Draw the parameters of a batch."""
    recipe = load_recipe("realesrgan-1")
    seeds = [variant_seed(0, f"{k:064x}", batch) for k in range(num)]
    return [draw_parameters(recipe, seed, scale=SCALE, canvas_px=CANVAS_PX, crop_px=CROP_PX) for seed in seeds]


def build_ours(num: int, device: torch.device, dtype: torch.dtype) -> Degrade:
    """Return our side."""
    hr = canvases(num).to(device)

    def run(batch: int) -> tuple[Tensor, Tensor]:
        result = degrade(hr, stack_parameters(draw(batch, num)).to(device), dtype=dtype)
        return result.lq, result.gt

    return run


def load_reference(basicsr: Path, realesrgan: Path) -> Any:
    """Import Real-ESRGAN's model from a checkout, without the packages that its `feed_data` does not use."""
    if importlib.util.find_spec("cv2") is None:
        sys.modules["cv2"] = _opencv_kernel()
    # Bare packages: their own __init__ imports every network, data set and metric.
    for name in ("basicsr", "basicsr.data", "basicsr.utils", "basicsr.models"):
        package = types.ModuleType(name)
        package.__path__ = [str(basicsr.joinpath(*name.split(".")))]
        sys.modules[name] = package
    networks = types.ModuleType("basicsr.models.srgan_model")
    vars(networks)["SRGANModel"] = object
    sys.modules[networks.__name__] = networks
    utils = vars(sys.modules["basicsr.utils"])
    utils["DiffJPEG"] = importlib.import_module("basicsr.utils.diffjpeg").DiffJPEG
    utils["USMSharp"] = importlib.import_module("basicsr.utils.img_process_util").USMSharp
    return import_script(realesrgan / "realesrgan" / "models" / "realesrgan_model.py").RealESRGANModel


def _opencv_kernel() -> types.ModuleType:
    """The one function of OpenCV that is called: a Gaussian window by its length."""

    def window(length: int, _: float) -> np.ndarray:
        sigma = 0.3 * ((length - 1) * 0.5 - 1) + 0.8
        values = np.exp(-((np.arange(length) - length // 2) ** 2) / (2 * sigma**2))
        return (values / values.sum())[:, None]

    opencv = types.ModuleType("cv2")
    vars(opencv)["getGaussianKernel"] = window
    return opencv


def build_reference(num: int, device: torch.device, options: argparse.Namespace) -> Degrade:
    """Return the reference's side: its own `feed_data`, its pool full."""
    kind = load_reference(options.reference, options.model)
    model = kind.__new__(kind)
    settings = options.model / "options" / "train_realesrgan_x4plus.yml"
    model.opt = yaml.safe_load(settings.read_text(encoding="utf-8"))
    model.is_train, model.device = True, device
    utils = sys.modules["basicsr.utils"]
    jpeg = utils.DiffJPEG(differentiable=False).to(device)
    # On a CPU its filter's view() needs what it has on a GPU: contiguous images.
    model.jpeger = lambda image, quality: jpeg(image, quality=quality).contiguous()
    model.usm_sharpener = utils.USMSharp().to(device)
    # A pool that is full is what all but the first batches of a run see; it must be divisible by the batch.
    model.queue_size = model.queue_ptr = 180 // num * num
    model.queue_lr = torch.zeros(model.queue_size, 3, CROP_PX // SCALE, CROP_PX // SCALE, device=device)
    model.queue_gt = torch.zeros(model.queue_size, 3, CROP_PX, CROP_PX, device=device)
    hr = canvases(num)

    def run(batch: int) -> tuple[Tensor, Tensor]:
        random.seed(batch)
        np.random.seed(batch)
        torch.manual_seed(batch)
        model.feed_data({"gt": hr, **kernels_of(batch, num)})
        return model.lq, model.gt

    return run


def kernels_of(batch: int, num: int) -> dict[str, Tensor]:
    """Kernels for the reference, drawn once; their values do not change its work."""
    if (batch, num) not in _KERNELS:
        drawn = [[step for step in sample.steps if isinstance(step, Blur)] for sample in draw(batch, num)]
        names = ("kernel1", "kernel2", "sinc_kernel")
        columns = zip(names, zip(*drawn, strict=True), strict=True)
        _KERNELS[batch, num] = {name: blur_kernels(column).float() for name, column in columns}
    return _KERNELS[batch, num]


_KERNELS: dict[tuple[int, int], dict[str, Tensor]] = {}


def build(way: str, num: int, options: argparse.Namespace) -> Degrade:
    """Return one side."""
    device = torch.device(options.device)
    if way == "reference":
        return build_reference(num, device, options)
    return build_ours(num, device, torch.float32 if way == "ours, float32" else torch.float64)


def time_alternating(sides: dict[str, Degrade], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the seconds of every batch of each side, after one that is not counted."""
    seconds: dict[str, list[float]] = {way: [] for way in sides}
    for batch in range(options.repeats + 1):
        kernels_of(batch, options.batch)
        for way, run in sides.items():
            start = time.perf_counter()
            lq, gt = run(batch)
            if options.device == "cuda":
                torch.cuda.synchronize()
            seconds[way].append(time.perf_counter() - start)
            check_shapes(way, lq, gt, options.batch)
    return {way: values[1:] for way, values in seconds.items()}


def check_shapes(way: str, lq: Tensor, gt: Tensor, num: int) -> None:
    """Refuse to time what makes something else."""
    shapes = (tuple(lq.shape), tuple(gt.shape))
    lq_px = CROP_PX // SCALE
    if shapes != ((num, 3, lq_px, lq_px), (num, 3, CROP_PX, CROP_PX)) or not 0 <= lq.min() <= lq.max() <= 1:
        raise SystemExit(f"{way} made {shapes}")


def measure_peak(num: int, options: argparse.Namespace, pipe: multiprocessing.connection.Connection) -> None:
    """Send the peak resident memory that batches of ours add to an idle process, in MiB."""
    torch.set_num_threads(options.threads)
    # Constant tables and libraries are loaded by a batch of one.
    build("ours", 1, options)(0)
    # Linux: forget the peak so far. (The peak of `getrusage` would be that of the parent process, if larger.)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    idle_kib = memory_kib("VmRSS")
    run = build("ours", num, options)
    for batch in range(2):
        run(batch)
    pipe.send((memory_kib("VmHWM") - idle_kib) / 1024)


def memory_kib(field: str) -> int:
    """Return this process's resident memory now (VmRSS) or at its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def peak_mib(num: int, options: argparse.Namespace) -> float:
    """Measure one size of batch in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=measure_peak, args=(num, options, send))
    process.start()
    send.close()
    peak = receive.recv()
    process.join()
    return peak


def time_rows(timings: dict[str, list[float]]) -> list[Row]:
    """Return the rows of the times."""
    slow, rows = timings["reference"], []
    for way, values in timings.items():
        faster, faster_range = speed_up(slow, values)
        spread = {"s per batch": extremes(values), "speed-up": faster_range, "speed-up by sums": faster_range}
        targets = {"speed-up": 8.0} if way == "ours" else {}
        cells = (way, statistics.median(values), faster, sum(slow) / sum(values))
        rows.append(row_of(TIMES, *cells, spread=spread, targets=targets))
    return rows


def main() -> None:
    """Measure and publish the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--reference", type=Path, help="checkout of github.com/XPixelGroup/BasicSR, for the part `time`"
    )
    parser.add_argument("--model", type=Path, help="checkout of github.com/xinntao/Real-ESRGAN, for the part `time`")
    parser.add_argument("--parts", nargs="+", choices=("time", "memory"), default=["time", "memory"])
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--memory-batches", nargs="+", type=int, default=[3, 6, 12, 24])
    add_json_argument(parser)
    options = parser.parse_args()
    if "time" in options.parts:
        require_checkouts(options, parser)
    torch.set_num_threads(options.threads)
    if "time" in options.parts:
        timings = time_alternating({way: build(way, options.batch, options) for way in WAYS}, options)
        publish("degradation", TIMES, time_rows(timings), options)
    if "memory" in options.parts and options.device == "cpu":
        peaks = [row_of(PEAKS, num, peak_mib(num, options)) for num in options.memory_batches]
        publish("degradation-memory", PEAKS, peaks, options)


def require_checkouts(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with exit code 2 without both checkouts."""
    if options.reference is None or options.model is None:
        parser.error("the part `time` needs --reference and --model; --parts memory does without them")
    for folder, file in ((options.reference, "basicsr/utils/diffjpeg.py"), (options.model, "realesrgan/models")):
        if not (folder / file).exists():
            parser.error(f"{folder} is not the checkout that is needed: it has no {file}")


if __name__ == "__main__":
    main()
