"""How long does upscaling a photo take, and how much memory: ours, spandrel's call, and Real-ESRGAN's tile helper.

All have one network, the compact generator with 64 features and 16 blocks at x4, and return 8-bit pixels. Each works in
a process of its own; they take turns, and the table has medians. spandrel passes the whole photo through the network.

Run:
    git clone https://github.com/xinntao/Real-ESRGAN /tmp/Real-ESRGAN
    python benchmarks/upscaling.py --helper /tmp/Real-ESRGAN --sizes 510x340 800x600 --tile-px 512
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _device import describe_device
from _measure import Step, StepProcess, import_script, peak_mib, time_alternating
from numpy import ndarray

SCALE, NUM_FEATURES, NUM_BLOCKS = 4, 64, 16
Build = Callable[..., Step]


def main() -> None:
    """Measure every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--helper", type=Path, required=True, help="checkout of github.com/xinntao/Real-ESRGAN")
    parser.add_argument("--sizes", nargs="+", default=["510x340", "800x600"], help="of photos, WIDTHxHEIGHT in LQ px")
    parser.add_argument("--tile-px", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print(f"{describe_device('cuda' if torch.cuda.is_available() else 'cpu')}, {options.threads} thread(s)")
    print("| photo, px | way | s | ratio to ours | output megapixels/s | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            measure(size, options, Path(folder))


def measure(size: str, options: argparse.Namespace, folder: Path) -> None:
    """Print the rows of one size."""
    width, height = map(int, size.split("x"))
    lq = np.random.RandomState(0).randint(0, 256, (height, width, 3), dtype=np.uint8)
    ways: dict[str, tuple[Build, tuple[Any, ...]]] = {
        f"ours, tiles of at most {options.tile_px}": (build_ours, (lq, options.tile_px)),
        f"Real-ESRGAN's helper, tiles of {options.tile_px}": (
            build_helper, (lq, options.tile_px, options.helper, folder),
        ),
        "spandrel's call, whole": (build_spandrel, (lq, folder)),
    }  # fmt: skip
    processes = {
        way: StepProcess(build, *given, threads=options.threads, warmup=1) for way, (build, given) in ways.items()
    }
    wall, _ = time_alternating({way: process.time for way, process in processes.items()}, options.repeats)
    for process in processes.values():
        process.close()
    ours = next(iter(wall.values()))
    for way, (build, given) in ways.items():
        mib = peak_mib(build, *given, threads=options.threads, steps=1)
        rate = 1e-6 * SCALE**2 * width * height / wall[way]
        print(f"| {size} | {way} | {wall[way]:.2f} | {wall[way] / ours:.2f} | {rate:.2f} | {mib:,.0f} |", flush=True)


def build_network() -> torch.nn.Module:
    """Return the generator, the same in every process."""
    from pipeline.models.generators import SRVGGNetCompact

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
