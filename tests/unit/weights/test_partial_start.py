"""Initial weights that fit a network in part: what is taken, what is listed, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import CheckpointError, ConfigError
from pipeline.models.discriminators import PatchDiscriminator, PatchOptions, save_discriminator, start_discriminator
from pipeline.models.discriminators.spectral_norm import SpectralNormConv2d
from pipeline.models.generators import (
    CompactOptions,
    GeneratorOptions,
    RRDBNet,
    RRDBOptions,
    SRVGGNetCompact,
    build_generator,
    save_generator,
    start_generator,
)

CHANNELS = 64


def rrdb(num_blocks: int, **changes: Any) -> RRDBOptions:
    options = RRDBOptions(scale=4, num_features=8, num_blocks=num_blocks, growth_channels=4)
    return replace(options, **changes)


def partial_start(options: GeneratorOptions, file: Path) -> tuple[nn.Module, tuple[str, ...], dict[str, Tensor]]:
    """The network, what it leaves out, and the random weights that it would have without the file."""
    torch.manual_seed(1)
    plain = build_generator(options, 48).state_dict()
    torch.manual_seed(1)
    generator, weights = start_generator(replace(options, initial_weights=file, initial_weights_partial=True), 48)
    return generator, weights.left_out, plain


@pytest.mark.parametrize(("blocks_in_file", "num_blocks"), [(1, 3), (3, 1)])
def test_generator_with_other_blocks_takes_the_rest(tmp_path: Path, blocks_in_file: int, num_blocks: int) -> None:
    save_generator(tmp_path / "g.safetensors", given := build_generator(rrdb(blocks_in_file)))
    generator, left_out, plain = partial_start(rrdb(num_blocks), tmp_path / "g.safetensors")
    theirs = given.state_dict()
    for name, tensor in generator.state_dict().items():
        assert torch.equal(tensor, theirs.get(name, plain[name])), name
    num_common = len(theirs.keys() & plain.keys())
    num_missing, num_unexpected = len(plain) - num_common, len(theirs) - num_common
    assert {num_missing, num_unexpected} == {0, 60}
    assert left_out[0] == (
        f"{num_common} of {len(plain)} entries of RRDBNet are taken from the file; {num_missing} are missing in it and "
        f"0 misshapen, {num_unexpected} of its {len(theirs)} are unexpected"
    )
    kind = "missing" if num_missing else "unexpected"
    assert f"{kind} body.1.rdb1.conv1.weight (4, 8, 3, 3)" in left_out[1:5]
    assert left_out[5:] == ("and 56 more",)


def test_generator_for_another_scale_takes_all_but_its_last_layer(tmp_path: Path) -> None:
    save_generator(tmp_path / "g.safetensors", SRVGGNetCompact(4, 1, 2))
    _, left_out, _ = partial_start(CompactOptions(scale=4, num_features=4, num_blocks=1), tmp_path / "g.safetensors")
    assert left_out[1:] == (
        "misshapen body.4.weight: got (12, 4, 3, 3), needs (48, 4, 3, 3)",
        "misshapen body.4.bias: got (12,), needs (48,)",
    )


def test_generator_that_the_file_fits_whole_leaves_nothing_out(tmp_path: Path) -> None:
    save_generator(tmp_path / "g.safetensors", given := build_generator(rrdb(1)))
    generator, left_out, _ = partial_start(rrdb(1), tmp_path / "g.safetensors")
    assert left_out == ()
    assert all(torch.equal(tensor, given.state_dict()[name]) for name, tensor in generator.state_dict().items())


def discriminator_file(path: Path, semantic_channels: int, num_features: int) -> dict[str, Tensor]:
    options = PatchOptions(semantic=True, num_features=num_features)
    state = PatchDiscriminator(num_features, semantic_channels).state_dict()
    save_discriminator(path, options, state, {})
    return dict(state)


@pytest.mark.parametrize(("num_features", "channels"), [(8, CHANNELS), (16, CHANNELS * 2)], ids=["features", "layer"])
def test_discriminator_with_other_sizes_takes_the_rest_and_knows_its_spectral_norms(
    tmp_path: Path, num_features: int, channels: int
) -> None:
    given = discriminator_file(tmp_path / "d.safetensors", channels, num_features)
    options = PatchOptions(
        semantic=True, num_features=16, initial_weights=tmp_path / "d.safetensors", initial_weights_partial=True
    )
    discriminator, weights = start_discriminator(options, CHANNELS, 48)
    own = discriminator.state_dict()
    assert 0 < len(weights.tensors) < len(own)
    assert "misshapen" in weights.left_out[-2]
    # Vectors are estimated anew where a weight is not in the file.
    for name in weights.tensors:
        if not name.endswith(("_u", "_v")):
            assert torch.equal(own[name], given[name]), name
    for name, layer in discriminator.named_modules():
        if isinstance(layer, SpectralNormConv2d) and f"{name}.weight" not in weights.tensors:
            norm = torch.linalg.matrix_norm(layer.eval().normalised_weight().flatten(1), 2)
            assert float(norm.detach()) == pytest.approx(1.0, rel=0.1), name


def test_weights_without_singular_vectors_get_their_own(tmp_path: Path) -> None:
    state = PatchDiscriminator(16, CHANNELS).state_dict()
    scaled = {name: tensor * 100 for name, tensor in state.items() if not name.endswith(("_u", "_v"))}
    save_file(scaled, tmp_path / "d.safetensors")
    file = tmp_path / "d.safetensors"
    options = PatchOptions(semantic=True, num_features=16, initial_weights=file, initial_weights_partial=True)
    discriminator, weights = start_discriminator(options, CHANNELS, 48)
    assert weights.tensors.keys() == scaled.keys()
    layers = [layer for layer in discriminator.modules() if isinstance(layer, SpectralNormConv2d)]
    assert layers
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.eval().normalised_weight().flatten(1), 2)
        assert float(norm.detach()) == pytest.approx(1.0, rel=0.1)


def test_file_of_which_nothing_fits_is_refused(tmp_path: Path) -> None:
    save_file(PatchDiscriminator(4, CHANNELS).state_dict(), tmp_path / "d.safetensors")
    message = (
        r"generator\.initial_weights: none of the \d+ tensors given fits an entry of RRDBNet by name and shape; use "
        r"weights of this architecture\n  missing body\.0"
    )
    with pytest.raises(CheckpointError, match=message):
        partial_start(rrdb(1), tmp_path / "d.safetensors")


def test_refusal_of_a_file_that_fits_in_part_names_the_option_and_how_much_it_takes(tmp_path: Path) -> None:
    save_generator(tmp_path / "g.safetensors", given := build_generator(rrdb(1)))
    strict = rrdb(3, initial_weights=tmp_path / "g.safetensors")
    taken = len(given.state_dict())
    with pytest.raises(
        CheckpointError,
        match=rf"(?s)and 56 more\n  generator\.initial_weights_partial=true takes the {taken} that fit, and lists the",
    ):
        start_generator(strict, 48)
    save_file({"other": torch.zeros(1)}, tmp_path / "g.safetensors")
    with pytest.raises(CheckpointError, match="do not fit RRDBNet") as caught:
        start_generator(strict, 48)
    assert "partial" not in str(caught.value)


def test_integers_are_refused_of_a_part_too(tmp_path: Path) -> None:
    state = {name: tensor.to(torch.int8) for name, tensor in RRDBNet(8, 1, 4, 4).state_dict().items()}
    save_file(state, tmp_path / "g.safetensors")
    with pytest.raises(CheckpointError, match=r"holds torch\.int8 where RRDBNet has floating-point weights"):
        partial_start(rrdb(2), tmp_path / "g.safetensors")


class Code:
    """An object that a pickle would build."""


def test_file_that_would_run_code_is_refused_of_a_part_too(tmp_path: Path) -> None:
    torch.save({"params": RRDBNet(8, 1, 4, 4).state_dict(), "code": Code()}, tmp_path / "g.pth")
    with pytest.raises(CheckpointError, match=r"generator\.initial_weights: .*may run code"):
        partial_start(rrdb(2), tmp_path / "g.pth")


@pytest.mark.parametrize("file", [None, Path("random")])
def test_part_of_no_file_is_refused(file: Path | None) -> None:
    with pytest.raises(
        ConfigError, match="initial_weights_partial=true needs a file in initial_weights; or leave it out"
    ):
        rrdb(1, initial_weights=file, initial_weights_partial=True)
    with pytest.raises(ConfigError, match="initial_weights_partial=true needs a file"):
        PatchOptions(semantic=False, num_features=8, initial_weights_partial=True)
