"""Says what a file is that is no weight file: what people have after a download that went wrong."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

_START_BYTES = 1024
# The version of its format, then who wrote it or the graph: Protocol Buffers have no signature.
_ONNX = re.compile(rb"\x08[\x01-\x20](\x12[\x01-\x40][ -~]|:)")
_NUM_NAMES_SHOWN = 3
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
_KINDS = (
    (b"\x1f\x8b", "a gzip archive; unpack it and give the weight file inside"),
    (b"BZh", "a bzip2 archive; unpack it and give the weight file inside"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it and give the weight file inside"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it and give the weight file inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it and give the weight file inside"),
    (b"Rar!", "a RAR archive; unpack it and give the weight file inside"),
    (b"GGUF", "a GGUF file; give the network's safetensors or torch file"),
    (b"\x89HDF", "an HDF5 file (Keras or MATLAB); give the network's safetensors or torch file"),
    (b"\x93NUMPY", "a NumPy array; give the network's safetensors or torch file"),
    (b"\x89PNG", "a PNG picture; give MODEL first and the picture after it"),
    (b"\xff\xd8\xff", "a JPEG picture; give MODEL first and the picture after it"),
    (b"%PDF", "a PDF document; give a .safetensors or .pth file"),
)


def describe_folder(folder: Path) -> str:
    """Return what to say of a folder that was given as a weight file."""
    return f"is a folder, not a weight file; {_names(sorted(path.name for path in folder.iterdir()))}"


def describe(path: Path) -> str | None:
    """Return what a file is, and what to do, if its first bytes show that it holds no weights; None otherwise.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(_START_BYTES)
    if not start:
        return "is empty (0 bytes); download or copy it again"
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        size = re.search(rb"\nsize (\d{1,15})\n", start)
        of = f" of {int(size[1]):,} bytes" if size else ""
        return f"is a Git LFS pointer, not the file{of} itself; run `git lfs pull` in its repository, or download it"
    if zipfile.is_zipfile(path):
        return None
    if start.startswith(b"PK\x03\x04"):
        return "is the beginning of a zip; the download stopped before its end: download it again"
    for signature, kind in _KINDS:
        if start.startswith(signature):
            return f"is {kind}"
    if _ONNX.match(start) and start[8:9] != b"{":
        return "is an ONNX model; give the safetensors or torch file that it was exported from"
    if start[257:262] == b"ustar":
        return "is a tar archive; unpack it and give the weight file inside"
    return _describe_text(start)


def describe_zip(names: list[str]) -> str:
    """Return what to say of a zip that `torch.save` did not write."""
    return f"is a zip archive of other files; unpack it: {_names(names)}"


def _describe_text(start: bytes) -> str | None:
    text = start.decode("utf-8", errors="ignore").strip().removeprefix("\ufeff")
    if b"\x00" in start or start[:1] == b"\x80" or not text or len(text) < len(start) / 2:
        return None
    if re.match(r"<(!doctype|html|\?xml|head|body|!--)", text, re.IGNORECASE):
        return (
            "is a web page, not weights: the link leads to a page that asks to log in or to confirm; "
            "download the file itself"
        )
    printable = "".join(letter if letter.isprintable() else " " for letter in text[:40])
    return f"is a text, not weights (it begins with {printable!r}); download the file itself"


def _names(names: list[str]) -> str:
    weights = [name for name in names if name.lower().endswith(_WEIGHT_SUFFIXES)]
    shown = ", ".join("".join(filter(str.isprintable, name))[:80] for name in weights[:_NUM_NAMES_SHOWN])
    more = f" and {len(weights) - _NUM_NAMES_SHOWN} more" if len(weights) > _NUM_NAMES_SHOWN else ""
    return f"give one of its files: {shown}{more}" if weights else "it holds no weight file"
