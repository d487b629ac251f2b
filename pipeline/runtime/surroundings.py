"""What reaches a run past its preset: variables of the launcher, of torch and of NCCL.

`accelerate launch` turns its flags and its configuration file, often one in the home folder that was written for other
projects, into `ACCELERATE_*` variables. Each variable that could change the numbers is honoured and recorded,
overruled with a note, or refused with the line to change: the preset decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.config.running import RuntimeConfig
from pipeline.errors import ConfigError
from pipeline.runtime import launch

_RECORDED = (
    "ACCELERATE_", "CUBLAS_", "CUDA_", "DS_", "FSDP_", "GLOO_", "MEGATRON_LM_", "MKL_", "NCCL_", "NVIDIA_TF32_OVERRIDE",
    "OMP_", "PARALLELISM_CONFIG_", "PYTORCH_", "TORCH",
)  # fmt: skip
_OFF = {"", "0", "false", "f", "no", "n", "off", "none"}
_DETERMINISTIC_WORKSPACES = {":4096:8", ":16:8"}

_WRONG_TRAINER = {
    "ACCELERATE_USE_FSDP": ("FSDP", "distributed_type: MULTI_GPU"),
    "ACCELERATE_USE_MEGATRON_LM": ("Megatron-LM", "distributed_type: MULTI_GPU"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("tensor or context parallelism", "no parallelism_config"),
    "ACCELERATE_USE_SAGEMAKER": ("SageMaker's data parallelism", "distributed_type: MULTI_GPU"),
    "ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES": ("a mixture of experts", "no deepspeed_moe_layer_cls_names"),
}
"""Variable to what it asks for, and the line of accelerate's configuration that this trainer takes."""

_ASYNC_ERRORS = ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "NCCL_ASYNC_ERROR_HANDLING")
_NO_COMPILER = ("TORCH_COMPILE_DISABLE", "TORCHDYNAMO_DISABLE")


def check_launch(runtime: RuntimeConfig, batch_size: int) -> int:
    """Check what the launcher started and left in the environment, before anything is built.

    Returns:
        Images per step and process.

    Raises:
        ConfigError: This run cannot be what its record would say, or cannot be split.
    """
    launch.check_installed()
    launch.check_launcher()
    check_surroundings(runtime)
    if launch.wants_deepspeed() and runtime.precision == "fp16":
        raise ConfigError(
            "runtime.precision='fp16' does not work under DeepSpeed here; set --runtime.precision bf16, or start "
            "with infra/accelerate/node.yaml (DDP)"
        )
    return launch.check_batch(batch_size, launch.launched_world_size())


def check_surroundings(runtime: RuntimeConfig, variables: Mapping[str, str] = os.environ) -> None:
    """Refuse variables that the run's record would contradict.

    Raises:
        ConfigError: Lists each with the line to change.
    """
    faults = [*_launcher_faults(variables), *_torch_faults(runtime, variables)]
    if faults:
        raise ConfigError("the environment contradicts what this run would record:\n  " + "\n  ".join(faults))


def _launcher_faults(variables: Mapping[str, str]) -> Iterator[str]:
    for name, (kind, line) in _WRONG_TRAINER.items():
        if _is_on(variables.get(name)):
            yield (
                f"the launcher asks for {kind} ({name}={variables[name]}), which this trainer does not support; "
                f"set `{line}` in {launcher_file(variables)}, or start with --config_file infra/accelerate/node.yaml"
            )
    if device := variables.get("ACCELERATE_TORCH_DEVICE"):
        yield f"ACCELERATE_TORCH_DEVICE={device} puts every process on one device; unset it, use CUDA_VISIBLE_DEVICES"
    if _is_on(variables.get("ACCELERATE_USE_CPU")) and _is_on(variables.get("ACCELERATE_USE_DEEPSPEED")):
        yield (
            f"the launcher asks for DeepSpeed and for `use_cpu: true`, which accelerate takes for a run without it; "
            f"set `use_cpu: false` in {launcher_file(variables)}: DeepSpeed finds by itself that there is no GPU"
        )


def _torch_faults(runtime: RuntimeConfig, variables: Mapping[str, str]) -> Iterator[str]:
    if runtime.compile:
        for name in _NO_COMPILER:
            if _is_on(variables.get(name)):
                yield f"{name}={variables[name]} against runtime.compile=true: unset it, or --runtime.no-compile"
    if runtime.precision == "float32" and _is_on(variables.get("NVIDIA_TF32_OVERRIDE")):
        yield (
            f"NVIDIA_TF32_OVERRIDE={variables['NVIDIA_TF32_OVERRIDE']} rounds to TF32 against "
            "runtime.precision='float32': unset it, or --runtime.precision bf16"
        )
    workspace = variables.get("CUBLAS_WORKSPACE_CONFIG")
    if runtime.deterministic and workspace is not None and workspace not in _DETERMINISTIC_WORKSPACES:
        yield f"CUBLAS_WORKSPACE_CONFIG={workspace} against runtime.deterministic=true: unset it, or set it to :4096:8"
    for name in _ASYNC_ERRORS:
        if variables.get(name) == "0":
            yield f"{name}=0 makes a lost rank hang past runtime.timeout_s={runtime.timeout_s}: unset it"


def overruled(
    runtime: RuntimeConfig, gradient_clip_norm: float, variables: Mapping[str, str] = os.environ
) -> list[str]:
    """Return a note for each of the launcher's wishes that the preset overrules."""
    asked = [
        _note(variables, "MIXED_PRECISION", "mixed_precision", {"no"}, f"runtime.precision={runtime.precision!r}"),
        _note(variables, "DYNAMO_BACKEND", "dynamo_backend", {"no"}, f"runtime.compile={runtime.compile}".lower()),
        _note(
            variables,
            "GRADIENT_ACCUMULATION_STEPS",
            "gradient_accumulation_steps",
            {"1", "auto"},
            f"runtime.micro_batch_size={runtime.micro_batch_size}",
        ),
        _note(
            variables,
            "GRADIENT_CLIPPING",
            "gradient_clipping",
            {"auto", *(str(number(gradient_clip_norm)) for number in (float, int))},
            f"schedule.gradient_clip_norm={gradient_clip_norm:g}",
        ),
        _note(variables, "DEEPSPEED_ZERO3_INIT", "zero3_init_flag", {"false"}, "the trainer"),
    ]
    if _is_on(variables.get("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE")):
        asked.append("note: TORCH_ALLOW_TF32_CUBLAS_OVERRIDE is overruled: float32 matrix products stay float32")
    return [note for note in asked if note]


def _note(variables: Mapping[str, str], name: str, field: str, same: set[str], decides: str) -> str | None:
    value = variables.get(f"ACCELERATE_{name}", "").lower()
    if value in {*_OFF, *same}:
        return None
    return (
        f"note: the launcher's {field}={value} (from its flags or {launcher_file(variables)}) is overruled; "
        f"{decides} decides"
    )


def launcher_file(variables: Mapping[str, str] = os.environ) -> str:
    """Return the configuration file of accelerate that is read where none is named."""
    caches = variables.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(variables.get("HF_HOME") or Path(caches) / "huggingface") / "accelerate" / "default_config.yaml"
    return str(path) if path.is_file() else "the file of its --config_file"


def recorded_variables(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables by which launcher, torch and NCCL are steered, for the run's record."""
    return {name: value for name, value in sorted(variables.items()) if name.startswith(_RECORDED)}


def _is_on(value: str | None) -> bool:
    return (value or "").lower() not in _OFF
