"""Files that are not weights are named for what they are; no message advises to load them unsafely."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import CheckpointError
from pipeline.models.generators import SRVGGNetCompact
from pipeline.weights.files import read_metadata, read_weights
from pipeline.weights.strict import load_strictly

POINTER = b"""version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 67040989
"""
PAGE = b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"


def state() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in SRVGGNetCompact(8, 1, 2).state_dict().items()}


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 64)
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("net.pth"))
    return stream.getvalue()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".ckpt"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (POINTER, r"is a Git LFS pointer, not the file of 67,040,989 bytes itself; run `git lfs pull`"),
        (PAGE, "is a web page, not weights"),
        (b"\n  <?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page, not weights"),
        (b"Entry not found", r"is a text, not weights \(it begins with 'Entry not found'\)"),
        (b'{"error": "Repository not found"}', "is a text, not weights"),
        (gzip.compress(b"x" * 100), "is a gzip archive; unpack it"),
        (tarred(), "is a tar archive; unpack it"),
        (zipped("a/net_g.pth", "a/readme.txt"), r"is a zip archive of other files; .* files: a/net_g\.pth"),
        (zipped("readme.txt"), "is a zip archive of other files; unpack it: it holds no weight file"),
        (zipped("net_g.pth")[:60], "is the beginning of a zip; the download stopped before its end"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(90), "is a 7z archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "is an HDF5 file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(90), "is a PNG picture"),
        (b"\x93NUMPY\1\0" + bytes(90), "is a NumPy array"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.9.1:" + bytes(90), "is an ONNX model; give the safetensors or torch file"),
        (bytes(range(256)), "neither safetensors nor a torch file.*damaged or truncated"),
    ],
    # Archives hold the time of day, which must not be in a test's name: each process would have another.
    ids=[
        *("empty", "pointer", "html", "xml", "text", "json", "gzip", "tar", "zip of weights", "zip of others"),
        *("torn zip", "7z", "hdf5", "png", "numpy", "onnx", "binary"),
    ],
)
def test_file_that_is_no_weights_is_named_for_what_it_is(
    content: bytes, words: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"net\{suffix}.*{words}") as refused:
        read_weights(path)
    assert "weights_only" not in str(refused.value)
    assert len(str(refused.value)) < 400 + len(str(path))


def test_folder_is_refused_with_the_weight_files_inside(tmp_path: Path) -> None:
    for name in ("config.json", "pytorch_model.bin", "model.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        CheckpointError, match=r"is a folder, .* give one of its files: model\.safetensors, pytorch_model"
    ):
        read_weights(tmp_path)


def test_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="is a device or a pipe"):
        read_weights(tmp_path / "net.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin", os.fsdecode(b"\xe9.safetensors")])
def test_weights_are_read_whatever_the_file_is_called(suffix: str, tmp_path: Path) -> None:
    for write in (lambda path: save_file(state(), path, {"scale": "2"}), lambda path: torch.save(state(), path)):
        path = tmp_path / f"net{suffix}"
        write(tmp_path / "written")
        (tmp_path / "written").rename(path)
        assert read_weights(path).keys() == state().keys()
        assert read_metadata(path) in ({"scale": "2"}, {})


def test_truncated_safetensors_says_so_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(state(), path)
    content = path.read_bytes()
    for kept in range(8, len(content), 97):
        path.write_bytes(content[:kept])
        with pytest.raises(CheckpointError, match="damaged or truncated: copy or download it again"):
            read_weights(path)


FORMATS = [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}]


@pytest.mark.parametrize("options", FORMATS, ids=["zip", "legacy", "protocol-4"])
def test_torch_file_is_read_as_torch_reads_it(options: dict, tmp_path: Path) -> None:
    values = torch.arange(24.0)
    tensors = {
        **{str(dtype): values.to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64)},
        **{"bool": values.bool(), "complex": torch.complex(values, values), "scalar": torch.tensor(3)},
        **{"transposed": values.reshape(4, 6).T, "part": values[3:7], "parameter": torch.nn.Parameter(values)},
        **{"expanded": torch.ones(1).expand(5, 7), "none": torch.empty(0), "again": values},
    }
    optimizer = {"state": {0: {"exp_avg": values}}, "param_groups": [{"betas": (0.9, 0.99), "params": [0]}]}
    path = tmp_path / "net.pth"
    torch.save({"params": tensors, "optimizer": optimizer, "epoch": 3}, path, **options)
    read, expected = read_weights(path), torch.load(path, weights_only=False)["params"]  # written above
    assert list(read) == list(expected)
    for name, tensor in expected.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(read[name], tensor), name


@pytest.mark.parametrize("options", FORMATS, ids=["zip", "legacy", "protocol-4"])
def test_truncated_torch_file_is_refused_at_every_length(options: dict, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(state(), path, **options)
    content = path.read_bytes()
    for kept in range(1, len(content), 97):
        path.write_bytes(content[:kept])
        with pytest.raises(CheckpointError, match=r"net\.pth"):
            read_weights(path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.complex64])
def test_quantized_weights_are_refused_where_they_would_be_taken_for_numbers(dtype: torch.dtype) -> None:
    quantized = {name: (tensor * 100).to(dtype) for name, tensor in state().items()}
    with pytest.raises(CheckpointError, match=rf"holds {dtype} where SRVGGNetCompact has floating-point weights"):
        load_strictly(SRVGGNetCompact(8, 1, 2), quantized)
