"""Precision and execution, and what a run reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import not_negative, positive, refuse
from shards.format.storage import StoragePath


@dataclass(frozen=True)
class RuntimeConfig:
    """Precision and execution."""

    precision: Literal["float32", "bf16", "fp16"]
    """bf16, fp16: autocast of the networks; losses, metrics and weights stay float32. fp16 is for devices without bf16:
    it scales each network's loss, and skips updates until the scale fits (not for DeepSpeed, nor for the shared
    discriminator pass)."""
    channels_last: bool
    """Memory layout of the convolutions' tensors."""
    compile: bool
    """torch.compile of generator and discriminator."""
    discriminator_pass: Literal["separate", "shared"]
    """separate: each network's update passes the output through the discriminator, as the paper's code does; shared:
    one pass serves both, faster and with one spectral-norm iteration fewer per step (not for DeepSpeed, nor for the
    relativistic loss)."""
    deterministic: bool
    """Deterministic algorithms only: the same bits on the same kind of device, at some cost on a GPU."""
    micro_batch_size: int | Literal["auto"] = 0
    """Images per forward and backward pass on each process, where its share of data.batch_size does not fit in memory;
    gradients are accumulated over the passes. 0: all at once. auto: as many as fit by the dry run's estimate, with
    headroom."""
    cuda_graphs: bool = False
    """Record a step's kernels once and launch them as a whole: a fast GPU with a small batch
    otherwise waits for the host, which launches thousands of kernels per step. For one process on a GPU."""
    timeout_s: int = 600
    """Timeout of collectives, in a step or while rank 0 writes; then the missing ranks are named."""

    def __post_init__(self) -> None:
        """Check ranges, and that fp16 does not share a pass, because each network's loss has its own scale."""
        scales = self.precision == "fp16"
        conflict = scales and self.discriminator_pass == "shared"
        records = scales and self.cuda_graphs
        refuse(
            [
                "precision='fp16' needs cuda_graphs=false; or use precision='bf16'" if records else None,
                *([] if self.micro_batch_size == "auto" else not_negative(micro_batch_size=self.micro_batch_size)),
                *positive(timeout_s=self.timeout_s),
                "precision='fp16' needs discriminator_pass='separate'; or use precision='bf16'" if conflict else None,
            ]
        )


@dataclass(frozen=True)
class ReportConfig:
    """Reports, validation and checkpoints. All intervals in images, multiples of `every_images`."""

    every_images: int
    """Losses to the terminal, metrics.jsonl and the trackers."""
    validate_every_images: int
    """`metrics` on `validation_sets`, pictures to the trackers; also at the end of the run."""
    checkpoint_every_images: int
    """A checkpoint; also at the end of the run and on SIGTERM or SIGUSR1."""
    keep_checkpoints: int
    """Number of newest checkpoints to keep."""
    validation_sets: tuple[Path, ...]
    """Evaluation sets, in any layout that jobs/evaluate.py takes."""
    experiment: str
    """MLflow experiment; W&B project."""
    trackers: tuple[str, ...] = ("mlflow",)
    """Where the run is shown: mlflow, tensorboard (event files in the run folder), wandb (written offline for
    `wandb sync`, unless WANDB_MODE=online). Empty: nowhere; jobs/sync.py sends a run later."""
    metrics: tuple[str, ...] = ("psnr_y", "ssim_y")
    """Metrics of the validations; `jobs/evaluate.py --metrics help` lists all. One whose weights are missing on any
    machine is named at the start of the run and left out."""
    keep_every_images: int = 0
    """Checkpoints at multiples of this are kept permanently; a multiple of `checkpoint_every_images`; 0: none."""
    backup: StoragePath | None = None
    """Folder or URL (s3://bucket/runs/name) where the run is kept too, for machines that vanish or share no storage:
    each checkpoint, the reports and the exports are copied there, and the same command on a machine that lacks them
    starts from there. None: nowhere."""
    keep_best: str = ""
    """Keep the checkpoint with the best validation too, by one of `metrics`: lpips (mean over the sets) or Set5/lpips
    (one set). At the end its averaged generator is exported beside the last one. Empty: none."""
    warn_after_images: int = 20_000
    """Warn when generator and discriminator have been out of balance for this many images: a discriminator at chance or
    saturated, or an adversarial loss below 1% of the generator's gradient; 0: never."""

    def __post_init__(self) -> None:
        """Check ranges and that the intervals nest, so that a report never spans a checkpoint."""
        amounts = positive(
            every_images=self.every_images,
            validate_every_images=self.validate_every_images,
            checkpoint_every_images=self.checkpoint_every_images,
            keep_checkpoints=self.keep_checkpoints,
        )
        nested = {
            "validate_every_images": self.validate_every_images,
            "checkpoint_every_images": self.checkpoint_every_images,
        }
        every = max(self.every_images, 1)
        loose = [
            f"{name}={value} is not a multiple of every_images={every}; "
            f"nearest is {max(every, round(value / every) * every)}"
            for name, value in nested.items()
            if value % every
        ]
        refuse(
            [
                *amounts,
                *loose,
                *not_negative(keep_every_images=self.keep_every_images, warn_after_images=self.warn_after_images),
                *self._retention_faults(),
            ]
        )

    def _retention_faults(self) -> list[str]:
        validate, save, faults = self.validate_every_images, self.checkpoint_every_images, []
        if not self.metrics:
            faults.append("metrics is empty; a validation needs one, such as psnr_y")
        if save > 0 and self.keep_every_images % save:
            faults.append(
                f"keep_every_images={self.keep_every_images} is not a multiple of checkpoint_every_images={save}"
            )
        if self.keep_best and not self.validation_sets:
            faults.append(f"keep_best={self.keep_best!r} needs validation_sets, which are empty")
        if self.keep_best and min(validate, save) > 0 and validate % save and save % validate:
            faults.append(
                f"keep_best={self.keep_best!r} compares checkpoints that are validated, but neither of "
                f"validate_every_images={validate} and checkpoint_every_images={save} is a multiple of the other"
            )
        return faults
