"""The bytes of a dataset: tar, sidecar, manifest, PNG, and the storage that they lie on. FORMAT.md specifies them."""
