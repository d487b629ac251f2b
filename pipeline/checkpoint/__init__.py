"""Checkpoints: what they hold, how they lie on disk, which stay, and how they are written while training goes on."""

from pipeline.checkpoint.background import BackgroundWriter
from pipeline.checkpoint.retention import Retention
from pipeline.checkpoint.store import Checkpoint, CheckpointStore, load_checkpoint

__all__ = ["BackgroundWriter", "Checkpoint", "CheckpointStore", "Retention", "load_checkpoint"]
