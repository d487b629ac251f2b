"""Weight files made to crash, hang or fill the memory are refused, and quickly; a seeded fuzzer looks for more."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from spandrel_sizes import small_options

from pipeline.errors import CheckpointError, ConfigError
from pipeline.models.generators import RRDBNet, SRVGGNetCompact, SwinIR, build_generator, load_generator
from pipeline.weights.files import read_metadata, read_weights
from pipeline.weights.limits import VARIABLE

pytestmark = pytest.mark.timeout(120)


def networks() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    swinir = SwinIR(2, embed_dim=4, depths=[2], num_heads=[2], window_px=2, training_size_px=4)
    of_spandrel = build_generator(small_options("RealPLKSR", 2, n_blocks=1))
    return [RRDBNet(4, 1, 2, 2), SRVGGNetCompact(4, 1, 2), swinir, of_spandrel]


def states() -> list[dict[str, torch.Tensor]]:
    return [{name: tensor.clone() for name, tensor in network.state_dict().items()} for network in networks()]


# safetensors.


def with_header(header: Any, data: bytes = b"", declared: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if declared is None else declared) + text + data


def entry(shape: Any, start: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "content",
    [
        with_header({"a": entry([2], 0, 8)}, bytes(8), declared=2**63 - 1),
        with_header({"a": entry([2], 0, 8)}, bytes(8), declared=2**64 - 1),
        with_header({"a": entry([2**40, 2**40], 0, 8)}, bytes(8)),
        with_header({"a": entry([2**33], 0, 2**35)}, bytes(8)),
        with_header({"a": entry([2], 8, 0)}, bytes(8)),
        with_header({"a": entry([-1], 0, 8)}, bytes(8)),
        with_header({"a": entry([2], 0, 8, "F99")}, bytes(8)),
        with_header(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        with_header({"__metadata__": {"scale": {}}, "a": entry([2], 0, 8)}, bytes(8)),
    ],
    ids=range(9),
)
def test_safetensors_with_impossible_sizes_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"net\.safetensors"):
        read_weights(tmp_path / "net.safetensors")


def test_description_above_the_limit_is_refused_until_the_limit_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(save({"a": torch.zeros(2)}, {"note": "x" * 20_000}))
    monkeypatch.setenv(VARIABLE, "0.01")  # of which 10 KiB for the description
    for read in (read_weights, read_metadata):
        with pytest.raises(CheckpointError, match=rf"(?s)net\.safetensors.*more than the limit.*{VARIABLE}=0\.02"):
            read(path)
    monkeypatch.setenv(VARIABLE, "0.02")
    assert read_weights(path)["a"].tolist() == [0, 0]
    monkeypatch.setenv(VARIABLE, "lots")
    with pytest.raises(ConfigError, match=f"{VARIABLE}=lots must be a number of GiB"):
        read_weights(path)


@pytest.mark.parametrize("scale", ["²", "9" * 5000, "0", "-4", "4.0", "999"])
def test_scale_in_the_metadata_that_is_none_is_not_used(scale: str, tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(save(states()[0], {"scale": scale}))
    assert load_generator(tmp_path / "net.safetensors").scale == 2


# Sizes that make a network huge.


@pytest.mark.parametrize(
    ("number", "changes"),
    [
        (0, {"conv_first.weight": (200_000, 12, 3, 3)}),
        (0, {"body.999999999.rdb1.conv1.weight": (2, 4, 3, 3)}),
        (0, {"conv_up4000000000.weight": (4, 4, 3, 3)}),
        (0, {"conv_last.weight": (0, 4, 3, 3)}),
        (1, {"body.999999999.weight": (12, 4, 3, 3)}),
        (1, {"body.0.weight": (0, 3, 3, 3)}),
        (1, {"body.4.weight": (3 * 10**6, 4, 1, 1)}),
        (2, {"layers.0.residual_group.blocks.0.attn.relative_position_bias_table": (1_000_000, 2)}),
        (2, {"layers.999999999.norm.weight": (4,)}),
        (2, {"layers.0.residual_group.blocks.77777777.norm1.weight": (4,)}),
        (2, {"layers.0.residual_group.blocks.0.attn.relative_position_bias_table": (9, 0)}),
        (2, {"conv_first.weight": ()}),
        (3, {"feats.999999999.weight": (12, 16, 3, 3)}),
        (3, {"feats.0.weight": (10**9, 3, 3, 3)}),
        (3, {"feats.1.lk.conv.weight": (4, 4, 10**5, 10**5)}),
        (3, {"feats.3.weight": (0, 16, 3, 3)}),
    ],
)
def test_sizes_that_no_network_of_the_file_has_are_refused_before_building(
    number: int, changes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    state = states()[number]
    # One stored number stands for all.
    state |= {name: torch.zeros(1).expand(shape) if shape else torch.zeros(()) for name, shape in changes.items()}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"net\.pth"):
        load_generator(tmp_path / "net.pth")


def test_first_esrgan_with_a_huge_layer_number_is_refused(tmp_path: Path) -> None:
    state = {"model.0.weight": torch.zeros(4, 3, 3, 3), "model.3000000004.weight": torch.zeros(3, 4, 3, 3)}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"net\.pth"):
        load_generator(tmp_path / "net.pth")


# Pickles.


def archive_of(description: bytes, data: bytes = bytes(8), deflated: bool = False) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
        archive.writestr("a/data.pkl", description)
        archive.writestr("a/data/0", data)
    return stream.getvalue()


def tensor_pickle(numel: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """The description of one tensor `w` over the storage `0`, as torch writes it."""

    class Storage:
        pass

    class Writer(pickle._Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", numel) if isinstance(value, Storage) else None

    class Tensor:
        def __reduce__(self) -> Any:
            arguments = (Storage(), offset, size, stride, False, OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    stream = io.BytesIO()
    Writer(stream, protocol=2).dump({"w": Tensor()})
    return stream.getvalue()


def test_tensor_within_its_storage_is_read(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(archive_of(tensor_pickle(2, (2,), (1,))))
    assert read_weights(tmp_path / "net.pth")["w"].tolist() == [0, 0]


def nested_keys() -> bytes:
    """{t: 1} with t = (t1, t1), t1 = (t2, t2), ...: the hash of t takes 2^60 steps."""
    return b"\x80\x02})" + b"".join(b"q" + bytes([n, 104, n]) + b"\x86" for n in range(60)) + b"K\x01s."


DEEP = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."


@pytest.mark.parametrize(
    "content",
    [
        archive_of(tensor_pickle(2**40, (2,), (1,))),
        archive_of(tensor_pickle(2, (2**39,), (1,))),
        archive_of(tensor_pickle(2, (2**39,), (0,))),
        archive_of(tensor_pickle(2, (2,), (1,), offset=2**30)),
        archive_of(tensor_pickle(2, (2**70,), (0,))),
        archive_of(tensor_pickle(2, (-1,), (1,))),
        archive_of(DEEP),
        archive_of(nested_keys()),
        archive_of(b"\x80\x02]r\xff\xff\xff\x7f."),  # a memo index of 2^31
        archive_of(b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"."),  # a bytearray of 1 TiB
        archive_of(b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."),
        archive_of(b"\x80\x02}q\x00X\x06\x00\x00\x00paramsh\x00s."),  # d["params"] = d
        archive_of(b"\x80\x02}" * 3000 + b"X\x01\x00\x00\x00a" + b"s" * 10 + b"."),
    ],
    ids=range(13),
)
def test_torch_archive_that_would_crash_hang_or_fill_the_memory_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"net\.pth"):
        read_weights(tmp_path / "net.pth")


def test_zip_bomb_is_refused_by_its_size_in_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.pth").write_bytes(archive_of(tensor_pickle(2, (2,), (1,)), bytes(30 * 2**20), deflated=True))
    assert (tmp_path / "net.pth").stat().st_size < 2**20
    monkeypatch.setenv(VARIABLE, "0.02")
    with pytest.raises(CheckpointError, match=r"it declares contents of 30\.0 MiB, more than the limit of 20\.5 MiB"):
        read_weights(tmp_path / "net.pth")
    monkeypatch.setenv(VARIABLE, "0.04")
    assert read_weights(tmp_path / "net.pth")["w"].tolist() == [0, 0]


def test_module_that_holds_itself_is_read_once(tmp_path: Path) -> None:
    module = b"c__torch__\nM\n)\x81q\x00}X\x04\x00\x00\x00selfh\x00sb."
    (tmp_path / "net.pt").write_bytes(archive_of(b"\x80\x02" + module))
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_weights(tmp_path / "net.pt")


# The fuzzer: whole files with one part changed.

VALUES = [
    None,
    True,
    "",
    "x" * 500,
    "F32",
    -1,
    0,
    1,
    3,
    2**31,
    2**63,
    2**100,
    1.5,
    float("nan"),
    [],
    {},
    [[]],
    {"a": {}},
]


def mutated_header(rng: random.Random, content: bytes) -> bytes:
    """A safetensors file with one to three fields of its header replaced."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(list(header) or ["a"])
        value = copy.deepcopy(rng.choice(VALUES))
        field = rng.choice(["dtype", "shape", "data_offsets", "side", "offset", "name", "whole", "absent"])
        part = header.get(name)
        if not isinstance(part, dict) or field == "whole":
            header[name] = value
        elif field == "absent":
            part.pop(rng.choice(list(part) or ["a"]), None)
        elif field == "name":
            header[rng.choice([name + ".0", "body.99999999.weight", "", "layers.7.x"])] = header.pop(name)
        elif field in ("side", "offset"):
            sides = part.get("shape" if field == "side" else "data_offsets")
            if isinstance(sides, list) and sides:
                sides[rng.randrange(len(sides))] = value
        else:
            part[field] = value
    return with_header(header, content[8 + length :], rng.choice([None] * 8 + [0, 2**32, 2**64 - 1]))


def mutated_pickle(rng: random.Random, content: bytes) -> bytes:
    """A zip of torch with bytes of its description replaced, inserted or cut: operations, lengths and numbers."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    target = next(name for name in parts if name.endswith("data.pkl"))
    description = bytearray(parts[target])
    operations = [value for name, value in vars(pickle).items() if name.isupper() and isinstance(value, bytes)]
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(description))
        piece = rng.choice([rng.choice(operations)[:1], rng.randbytes(rng.choice([1, 4, 8])), b"\xff" * 4, b""])
        description[at : at + rng.choice([0, 1, len(piece)])] = piece
    parts[target] = bytes(description)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return stream.getvalue()


def torch_file(state: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def refusals(folder: Path, mutate: Any, originals: list[bytes], count: int, seed: int) -> int:
    rng, refused = random.Random(seed), 0
    path = folder / "net.pth"
    for _ in range(count):
        path.write_bytes(mutate(rng, rng.choice(originals)))
        try:
            load_generator(path)
        except CheckpointError as error:
            refused += str(path) in str(error)
    return refused


@pytest.mark.filterwarnings("ignore:Casting complex values")
@pytest.mark.parametrize(
    ("count", "seed"), [(500, 1), pytest.param(5_000, 2, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_mutated_files_end_as_a_network_or_in_a_refusal(kind: str, count: int, seed: int, tmp_path: Path) -> None:
    if kind == "safetensors":
        mutate, originals = mutated_header, [save(state, {"scale": "2"}) for state in states()]
    else:
        mutate, originals = mutated_pickle, [torch_file({"params": state}) for state in states()]
    assert refusals(tmp_path, mutate, originals, count, seed) > count / 3
