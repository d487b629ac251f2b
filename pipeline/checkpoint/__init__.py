"""Checkpoints: content, layout on disk, retention, and writing in the background; the layout of a run folder."""

from pipeline.checkpoint.background import BackgroundWriter
from pipeline.checkpoint.retention import Retention
from pipeline.checkpoint.store import Checkpoint, CheckpointStore, load_checkpoint

__all__ = ["BackgroundWriter", "Checkpoint", "CheckpointStore", "Retention", "load_checkpoint"]
