"""Frozen ImageNet networks whose weights come in installed packages: for semantics, losses and metrics, offline."""
