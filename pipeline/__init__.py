"""The library: training, evaluation and tracking; docs/architecture.md shows the rooms and who may import whom."""
