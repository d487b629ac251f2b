"""Bytes on disk: photos, seeds, tars, sidecars, manifest, order, reading. Never torch."""
