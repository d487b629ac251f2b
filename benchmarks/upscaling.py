"""How long does upscaling a photo take, and how much memory: ours, spandrel's call, and Real-ESRGAN's tile helper.

All have one network, the compact generator with 64 features and 16 blocks at x4, and return 8-bit pixels. Each works in
a process of its own; they take turns, and the table has medians. spandrel passes the whole photo through the network.
A second table has a folder of files, one after another and two at a time, as `jobs/upscale.py` does.

Run:
    git clone https://github.com/xinntao/Real-ESRGAN /tmp/Real-ESRGAN
    python benchmarks/upscaling.py --helper /tmp/Real-ESRGAN --sizes 510x340 800x600 --tile-px 512
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import Step, StepProcess, import_script, peak_mib, time_repeats
from _origin import add_json_argument, extremes, publish, speed_up
from _tables import Column, Row, label, mib, ratio, row_of, seconds
from numpy import ndarray
from PIL import Image

from pipeline.inference.tiles import DEFAULT_OVERLAP_PX
from pipeline.models.generators import SRVGGNetCompact

SCALE, NUM_FEATURES, NUM_BLOCKS = 4, 64, 16
OURS, HELPER, SPANDREL = "ours, in tiles", "Real-ESRGAN's helper, in tiles", "spandrel's call, whole"
COLUMNS = (
    label("photo, px"),
    label("method"),
    seconds("s"),
    ratio("our speed-up"),
    Column("output megapixels/s", ".2f", "higher"),
    mib(),
    ratio("times our memory", "higher"),
)
TWO, ONE = "two at a time", "one after another"
FOLDER_COLUMNS = (label("files"), label("order"), seconds("s"), ratio("speed-up"))
Build = Callable[..., Step]


def main() -> None:
    """Measure every size and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--helper", type=Path, help="checkout of github.com/xinntao/Real-ESRGAN; else without it")
    parser.add_argument("--sizes", nargs="+", default=["510x340", "800x600"], help="of photos, WIDTHxHEIGHT in LQ px")
    parser.add_argument("--files", type=int, default=6, help="in the folder")
    parser.add_argument("--file-size", default="200x150", help="of each, WIDTHxHEIGHT in LQ px")
    parser.add_argument("--tile-px", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    add_json_argument(parser)
    options = parser.parse_args()
    options.device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for size in options.sizes for row in measure(size, options, Path(folder))]
        folder_rows = measure_folder(options, Path(folder))
    publish("upscaling", COLUMNS, rows, options, libraries=("torch", "spandrel"))
    publish("upscaling-folder", FOLDER_COLUMNS, folder_rows, options)


def measure(size: str, options: argparse.Namespace, folder: Path) -> list[Row]:
    """Return the rows of one size."""
    width, height = map(int, size.split("x"))
    lq = np.random.RandomState(0).randint(0, 256, (height, width, 3), dtype=np.uint8)
    methods: dict[str, tuple[Build, tuple[Any, ...]]] = {OURS: (build_ours, (lq, options.tile_px))}
    if options.helper is not None:
        methods[HELPER] = (build_helper, (lq, options.tile_px, options.helper, folder))
    methods[SPANDREL] = (build_spandrel, (lq, folder))
    processes = {
        method: StepProcess(build, *given, threads=options.threads, warmup=1)
        for method, (build, given) in methods.items()
    }
    wall = time_repeats({method: process.time for method, process in processes.items()}, options.repeats)[0]
    for process in processes.values():
        process.close()
    peaks = {
        method: peak_mib(build, *given, threads=options.threads, steps=1) for method, (build, given) in methods.items()
    }
    rows = []
    for method, wall_s in wall.items():
        faster, faster_range = speed_up(wall_s, wall[OURS])
        median = statistics.median(wall_s)
        rate = 1e-6 * SCALE**2 * width * height / median
        values = (f"{size}", method, median, faster, rate, peaks[method], peaks[method] / peaks[OURS])
        spread = {"s": extremes(wall_s), "our speed-up": faster_range}
        rows.append(row_of(COLUMNS, *values, spread=spread))
    return rows


def measure_folder(options: argparse.Namespace, folder: Path) -> list[Row]:
    """Return the rows of a folder of PNG files, from files to files."""
    width, height = map(int, options.file_size.split("x"))
    sources = [folder / f"{number}.png" for number in range(options.files)]
    for number, source in enumerate(sources):
        pixels = np.random.RandomState(number).randint(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(source)
    ways = (TWO, ONE)
    processes = {
        way: StepProcess(build_folder, way, sources, folder / way, options.tile_px, threads=options.threads, warmup=1)
        for way in ways
    }
    wall = time_repeats({way: process.time for way, process in processes.items()}, options.repeats)[0]
    for process in processes.values():
        process.close()
    rows = []
    for way, wall_s in wall.items():
        faster, faster_range = speed_up(wall[ONE], wall_s)
        values = (f"{options.files} of {width}x{height} px", way, statistics.median(wall_s), faster)
        rows.append(row_of(FOLDER_COLUMNS, *values, spread={"s": extremes(wall_s), "speed-up": faster_range}))
    return rows


def build_folder(way: str, sources: Sequence[Path], output: Path, tile_px: int) -> Step:
    """Return a call that upscales files."""
    from pipeline.inference.named_model import NamedModel
    from pipeline.inference.upscale_files import upscale_file
    from pipeline.inference.upscale_many import upscale_files

    model = NamedModel(build_network(), SCALE, output, None)
    pairs = [(source, output / source.name) for source in sources]
    sizes = {"tile_px": tile_px, "overlap_px": DEFAULT_OVERLAP_PX}

    def call() -> None:
        if way == TWO:
            for _ in upscale_files(model, pairs, **sizes, precision="float32"):
                pass
        else:
            for source, target in pairs:
                upscale_file(model, source, target, **sizes)

    return call


def build_network() -> SRVGGNetCompact:
    """Return the generator, the same in every process."""
    torch.manual_seed(0)
    network = SRVGGNetCompact(NUM_FEATURES, NUM_BLOCKS, SCALE).eval()
    return network.to("cuda" if torch.cuda.is_available() else "cpu")


def build_ours(lq: ndarray, tile_px: int) -> Step:
    """Return a call of ours, from pixels to pixels."""
    from pipeline.inference.upscale import upscale

    return functools.partial(upscale, build_network(), lq, SCALE, tile_px=tile_px)


def build_spandrel(lq: ndarray, folder: Path) -> Step:
    """Return spandrel's call as its documentation has it, with the conversion from and to pixels."""
    from spandrel import ImageModelDescriptor, ModelLoader

    from pipeline.models.generators import save_generator

    path = folder / "generator.safetensors"
    network = build_network()
    save_generator(path, network)
    model = ModelLoader(device=next(network.parameters()).device).load_from_file(path)
    assert isinstance(model, ImageModelDescriptor)
    model.eval()

    @torch.no_grad()
    def call() -> ndarray:
        image = torch.from_numpy(lq).to(model.device).permute(2, 0, 1)[None].float() / 255
        return (model(image)[0].permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()

    return call


def build_helper(lq: ndarray, tile_px: int, checkout: Path, folder: Path) -> Step:
    """Return a call of Real-ESRGAN's `RealESRGANer` with its default padding."""
    # Its downloads, of which none is made here, are by a library that newer torchvisions break.
    downloads = types.ModuleType("basicsr.utils.download_util")
    vars(downloads)["load_file_from_url"] = None
    sys.modules |= {name: types.ModuleType(name) for name in ("basicsr", "basicsr.utils")}
    sys.modules["basicsr.utils.download_util"] = downloads
    helper = import_script(checkout / "realesrgan" / "utils.py")
    network, path = build_network(), folder / "generator.pth"
    torch.save({"params": network.state_dict()}, path)
    upscaler = helper.RealESRGANer(SCALE, str(path), model=network, tile=tile_px)

    def call() -> ndarray:
        pixels, _ = upscaler.enhance(lq[..., ::-1])
        return pixels

    return call


if __name__ == "__main__":
    main()
