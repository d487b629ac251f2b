"""Bytes on disk: photos, seeds, tars, sidecars, manifest, sampling order, reading. Never imports torch."""
