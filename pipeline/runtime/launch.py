"""What the launcher was asked for, and whether that is what started.

Accelerate has ways to start one process where two were requested, or two that each believe to be alone
(`accelerate launch --cpu --num_processes 2`, or `--multi_gpu` on a machine without a GPU). Nothing fails then: both
ranks train the same data and overwrite each other's files. `check_world` turns that into one line before the start.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from pipeline.errors import ConfigError


def launched_world_size() -> int:
    """Return how many processes the launcher (torchrun, accelerate, deepspeed) started; 1 without one."""
    return _number("WORLD_SIZE", 1, least=1)


def _number(name: str, default: int, *, least: int = 0) -> int:
    text = os.environ.get(name, str(default)).strip()
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise ConfigError(
            f"{name}={text!r} in the environment is not a number from {least} on; start with accelerate launch, or "
            "unset it"
        )
    return int(text)


def restart_count() -> int:
    """Return how often the launcher has restarted the processes of this call (`--max_restarts`)."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def has_launcher() -> bool:
    """Return whether the parent is accelerate's or torch's launcher, which waits for this process."""
    return bool({"TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION"} & os.environ.keys())


def wants_deepspeed() -> bool:
    """Return whether `accelerate launch --use_deepspeed` (or its YAML) started this process."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def deepspeed_config_path() -> str | None:
    """Return the DeepSpeed JSON that the launcher was given, if any."""
    path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    return None if path.lower() in {"", "none"} else path


def zero_settings() -> dict[str, Any]:
    """Return DeepSpeed's `zero_optimization` from the fields of accelerate's own configuration, without a JSON file.

    Raises:
        ConfigError: The stage is not a number, or an offload to NVMe has no path.
    """
    settings: dict[str, Any] = {"stage": _number("ACCELERATE_DEEPSPEED_ZERO_STAGE", 1)}
    for name in ("optimizer", "param"):
        prefix = f"ACCELERATE_DEEPSPEED_OFFLOAD_{name.upper()}"
        device = os.environ.get(f"{prefix}_DEVICE", "none").lower()
        if device in {"", "none"}:
            continue
        settings[f"offload_{name}"] = {"device": device}
        if device == "nvme":
            path = os.environ.get(f"{prefix}_NVME_PATH", "none")
            if path.lower() in {"", "none"}:
                raise ConfigError(
                    f"the launcher's offload_{name}_device=nvme needs offload_{name}_nvme_path; or use cpu or none"
                )
            settings[f"offload_{name}"]["nvme_path"] = path
    return settings


def check_launcher() -> None:
    """Detect a launcher that was asked for several processes and started one.

    Raises:
        ConfigError: `accelerate launch --cpu --num_processes 2` or similar; names the command line that works.
    """
    was_accelerate, wants_several = "ACCELERATE_MIXED_PRECISION" in os.environ, "MASTER_ADDR" in os.environ
    if was_accelerate and wants_several and "WORLD_SIZE" not in os.environ:
        raise ConfigError(
            "accelerate was asked for several processes but started this one alone, as it does with --cpu.\n"
            "  On a CPU start two processes with:\n"
            "    accelerate launch --config_file infra/accelerate/cpu_2.yaml jobs/train_sed.py\n"
            "  If one process is what you want, unset MASTER_ADDR"
        )


def check_world(num_processes: int, process_index: int) -> None:
    """Compare the world that the library built with the one that the launcher started.

    Raises:
        ConfigError: They differ; names the command line that works.
    """
    launched, rank = launched_world_size(), _number("RANK", 0)
    if (num_processes, process_index) != (launched, rank):
        raise ConfigError(
            f"the launcher started {launched} process(es) and this is rank {rank}, but the library sees "
            f"{num_processes} and rank {process_index}.\n"
            "  On a CPU start two processes with:\n"
            "    accelerate launch --config_file infra/accelerate/cpu_2.yaml jobs/train_sed.py"
        )


def check_installed() -> None:
    """Check that the packages of the backend that the launcher asks for are there.

    Raises:
        ConfigError: One is missing; names it, the pip command, and how to train without it.
    """
    needed = ("deepspeed", "transformers") if wants_deepspeed() else ()
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the launcher asks for DeepSpeed, but {' and '.join(missing)} cannot be imported here (accelerate needs "
            f"both).\n  Install both with: pip install -e '.[deepspeed]'; or train with DDP: "
            "--config_file infra/accelerate/node.yaml"
        )


def check_batch(batch_size: int, world_size: int) -> int:
    """Return the images per step and process.

    Raises:
        ConfigError: The number of processes does not divide the global batch.
    """
    if batch_size % world_size:
        fits = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
        raise ConfigError(
            f"data.batch_size={batch_size} images per step cannot be split over {world_size} processes.\n"
            f"  Use {', '.join(map(str, fits))} processes, or set --data.batch-size to a multiple of {world_size}."
        )
    return batch_size // world_size
