"""One process's view of the machines: its rank and device, and how a network is trained there.

The only module that imports accelerate and deepspeed. It hides two ways to train two networks at once:

* plain and DDP: each network wrapped by Accelerate, gradients averaged once a backward;
* DeepSpeed ZeRO 0 to 3: each network an engine of its own under one Accelerator, prepared one after the other.
  `Accelerator.backward` would send the discriminator's loss through the generator's engine, and Accelerate would set
  gradient clipping to 1.0 unasked; so engines are called directly and every setting is written out.

Every method that says "collective" must be called by all ranks.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import (
    DeepSpeedPlugin,
    DistributedDataParallelKwargs,
    DynamoBackend,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    TorchDynamoPlugin,
    patch_environment,
)
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, TCPStore

from pipeline.config.running import RuntimeConfig
from pipeline.errors import ConfigError
from pipeline.runtime import launch
from pipeline.runtime.host_memory import keep_freed_memory
from pipeline.runtime.roll_call import RollCall
from pipeline.runtime.surroundings import check_launch, launcher_file, overruled, recorded_variables
from pipeline.runtime.trainable import DdpTrainable, DeepSpeedTrainable, PartitionedTrainable, Trainable
from shards.format.storage import parse_local_path, read_whole
from shards.schema import SchemaError, parse_json

MAX_ZERO_STAGE = 3
_MAX_SETTINGS_BYTES = 1 << 22
_AUTOCAST = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_DECIDED_BY_THE_PRESET = {
    "bf16",
    "fp16",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "optimizer",
    "scheduler",
    "torch_autocast",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
}


class Backend:
    """Ranks, device and wrapping. Build one a process, before any network; `close` it at the end.

    Args:
        runtime: Precision, determinism and timeout; the memory layout and compilation are the caller's.
        batch_size: Images per step over all ranks; the number of ranks must divide it.
        gradient_clip_norm: Largest gradient norm of each network; 0: no clipping.

    Raises:
        ConfigError: The launcher's world is not the library's, the batch cannot be split, the DeepSpeed configuration
            asks for what is not supported, or a variable of the environment contradicts the preset.
    """

    def __init__(self, runtime: RuntimeConfig, *, batch_size: int, gradient_clip_norm: float = 0.0) -> None:
        self.micro_batch_size = check_launch(runtime, batch_size)
        self.notes = overruled(runtime, gradient_clip_norm)
        """What the launcher asks for and the preset overrules, one line each."""
        world_size = launch.launched_world_size()
        self._precision = runtime.precision
        self._gradient_clip_norm = gradient_clip_norm
        self._timeout = datetime.timedelta(seconds=runtime.timeout_s)
        self._uses_deepspeed = launch.wants_deepspeed()
        if runtime.deterministic:
            set_deterministic()
        if launch.restart_count():
            _join_restarted(world_size, self._timeout)
        # As without TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, which some containers set.
        torch.set_float32_matmul_precision("highest")
        self._accelerator = self._open_accelerator()
        if self.device.type == "cpu":
            keep_freed_memory()
        launch.check_world(self._accelerator.num_processes, self._accelerator.process_index)
        # Flags and sums of a few numbers go over the CPU, so that asking never waits for the device.
        self._control_group = _gloo_group(runtime.timeout_s) if world_size > 1 else None
        self._roll_call = RollCall.of_group(self._control_group, runtime.timeout_s) if self._control_group else None

    def _open_accelerator(self) -> Accelerator:
        try:
            # Which fields came from the launcher's file is not its plugin's concern: all that count are written out.
            with patch_environment(accelerate_config_ds_fields=""):
                return self._build_accelerator()
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"accelerate cannot start: {str(error).splitlines()[0]}\n  Look at {launcher_file()} and at the "
                "ACCELERATE_* variables, or start with a file of infra/accelerate/"
            ) from error

    def _build_accelerator(self) -> Accelerator:
        on_cpu = not torch.cuda.is_available()
        # Written out, because where nothing is said accelerate takes the launcher's word.
        decided: dict[str, Any] = {
            "mixed_precision": "no",
            "dynamo_plugin": TorchDynamoPlugin(
                backend=DynamoBackend.NO, mode="default", fullgraph=False, dynamic=False, use_regional_compilation=False
            ),
            "gradient_accumulation_plugin": GradientAccumulationPlugin(num_steps=1),
            "step_scheduler_with_optimizer": False,
        }
        if not self._uses_deepspeed:
            ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
            waiting = InitProcessGroupKwargs(timeout=self._timeout)
            return Accelerator(cpu=on_cpu, kwargs_handlers=[ddp, waiting], **decided)
        if on_cpu:
            _prepare_deepspeed_for_cpu()
        # On a CPU, Accelerate finds no backend for DeepSpeed by itself and would believe to be alone.
        waiting = InitProcessGroupKwargs(backend="gloo" if on_cpu else "nccl", timeout=self._timeout)
        settings = deepspeed_settings(self.micro_batch_size, self._gradient_clip_norm, self._precision)
        plugin = DeepSpeedPlugin(hf_ds_config=settings, zero3_init_flag=False)
        return Accelerator(deepspeed_plugin=plugin, kwargs_handlers=[waiting], **decided)

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        return self._accelerator.device

    @property
    def rank(self) -> int:
        """Number of this process among all, from 0."""
        return self._accelerator.process_index

    @property
    def world_size(self) -> int:
        """Number of processes on all machines."""
        return self._accelerator.num_processes

    @property
    def is_local_leader(self) -> bool:
        """Whether this is the first rank of its machine."""
        return self._accelerator.is_local_main_process

    @property
    def is_leader(self) -> bool:
        """Whether this process writes the files and talks to MLflow: rank 0 of all, not of each node."""
        return self.rank == 0

    @property
    def description(self) -> str:
        """One phrase for the log: kind, processes, device."""
        kind = "DeepSpeed" if self._uses_deepspeed else "DDP" if self.world_size > 1 else "one process"
        return f"{kind}, {self.world_size} process(es), {self.device.type}, {self._precision}"

    @property
    def launch_record(self) -> dict[str, Any]:
        """What the launcher and the environment decided, as plain values: for the run's record."""
        plugin = self._accelerator.state.deepspeed_plugin
        return {
            "backend": self.description,
            "world_size": self.world_size,
            "deepspeed": plugin.deepspeed_config["zero_optimization"] if plugin is not None else {},
            "overruled": self.notes,
            "variables": recorded_variables(),
        }

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context that networks run in: bf16 or fp16 autocast, or nothing for float32."""
        dtype = _AUTOCAST[self._precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def wrap(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> Trainable:
        """Make a network trainable on all processes. Collective; weights become those of rank 0."""
        # One call each: prepared together, DeepSpeed would take the last module for both.
        if self._uses_deepspeed:
            # It sends and flattens weights as rows of bytes; another layout than this it cannot view so.
            module.to(memory_format=torch.contiguous_format)
        with warnings.catch_warnings():
            # Newer torch renames DDP's broadcast_buffers; the old name is what all versions that we allow know.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
            wrapped, prepared = self._accelerator.prepare(module, optimizer)
        if self._uses_deepspeed:
            is_partitioned = wrapped.zero_optimization_stage() == MAX_ZERO_STAGE
            return (PartitionedTrainable if is_partitioned else DeepSpeedTrainable)(wrapped, module)
        scaler = torch.amp.GradScaler(self.device.type, enabled=self._precision == "fp16")
        return DdpTrainable(wrapped, module, prepared.optimizer, self._gradient_clip_norm, scaler)

    def any_rank(self, flag: bool) -> bool:
        """Return whether the flag is true on any rank. Collective; does not wait for the device."""
        return self.any_rank_of_each([flag])[0]

    def any_rank_of_each(self, flags: list[bool]) -> list[bool]:
        """Return whether each flag is true on any rank; all pass equally many. Collective."""
        return [count > 0 for count in self.sum(torch.tensor(flags, dtype=torch.float64)).tolist()]

    def sum(self, values: Tensor) -> Tensor:
        """Return the element-wise sum over all ranks, on the CPU. Collective."""
        values = values.detach().to("cpu", torch.float64, copy=True)
        if self._control_group is not None:
            dist.all_reduce(values, op=dist.ReduceOp.SUM, group=self._control_group)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Return the element-wise mean over all ranks, on the CPU. Collective."""
        return self.sum(values) / self.world_size

    def naming_lost_ranks(self) -> AbstractContextManager[None]:
        """Return a context in which the failure of a collective becomes a `RankLostError` that names the rank."""
        return contextlib.nullcontext() if self._roll_call is None else self._roll_call.naming_the_lost()

    def barrier(self) -> None:
        """Wait for all ranks. Collective."""
        if self._control_group is not None:
            dist.barrier(group=self._control_group)

    def close(self) -> None:
        """Leave the process group in the order in which gloo does not abort. Collective."""
        self.barrier()
        self._accelerator.free_memory()
        gc.collect()
        self._accelerator.end_training()


def _join_restarted(world_size: int, timeout: datetime.timedelta) -> None:
    # A launcher with the static rendezvous, accelerate's default, keeps its store over a restart, and in it the
    # addresses of the processes that died, to which the new ones would try to connect until they time out.
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, world_size, is_master=False, timeout=timeout)
    dist.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=PrefixStore(f"restart_{launch.restart_count()}", store),
        rank=int(os.environ["RANK"]),
        world_size=world_size,
        timeout=timeout,
    )


def _gloo_group(timeout_s: float) -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout_s))
    if not isinstance(group, dist.ProcessGroup):
        raise ConfigError("this process is in no process group; start it with accelerate launch or torchrun")
    return group


def _prepare_deepspeed_for_cpu() -> None:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed.ops

    # It would compile an extension for inference at the start, which training never calls: a minute, and a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def set_deterministic() -> None:
    """Ask every library for the same bits on the same kind of device."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def deepspeed_settings(micro_batch_size: int, gradient_clip_norm: float, precision: str = "float32") -> dict[str, Any]:
    """Return the DeepSpeed configuration: the launcher's file or fields, and the settings that two engines need.

    Raises:
        ConfigError: The file is unreadable, asks for an unsupported stage, or sets what the preset decides.
    """
    path = launch.deepspeed_config_path()
    settings = (
        read_deepspeed_settings(parse_local_path(path)) if path else {"zero_optimization": launch.zero_settings()}
    )
    zero = settings.setdefault("zero_optimization", {})
    stage = zero.setdefault("stage", 1) if isinstance(zero, dict) else zero
    if isinstance(stage, bool) or stage not in range(MAX_ZERO_STAGE + 1):
        raise ConfigError(
            f"{path or launcher_file()}: zero_optimization.stage={stage}; generator and discriminator train with "
            f"stages 0 to {MAX_ZERO_STAGE}"
        )
    return settings | {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": gradient_clip_norm,
        # Otherwise stages 1 and 2 keep only the last of several backwards before a step.
        "managed_gradient_accumulation": False,
        # On a GPU an engine disables an autocast around it, unless it is configured here. Its "bf16" would cast the
        # weights but not the buffers, which the spectral norms cannot bear. Gradients are reduced in float32.
        "torch_autocast": {
            "enabled": precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }


def read_deepspeed_settings(path: Path) -> dict[str, Any]:
    """Read a DeepSpeed configuration.

    Raises:
        ConfigError: It cannot be read, is no JSON object, or decides what the preset decides.
    """
    try:
        settings = parse_json(read_whole(path, _MAX_SETTINGS_BYTES))
    except (OSError, SchemaError) as error:
        raise ConfigError(f"DeepSpeed configuration {path} cannot be read: {error}") from error
    if not isinstance(settings, Mapping):
        raise ConfigError(f"DeepSpeed configuration {path} is not a JSON object")
    decided = sorted(_DECIDED_BY_THE_PRESET & set(settings))
    if decided:
        raise ConfigError(
            f"{path} sets {', '.join(decided)}, which the preset decides; remove it there and use the preset's "
            "runtime.precision and schedule tables"
        )
    return dict(settings)
