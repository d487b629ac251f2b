"""Other projects' files in, our files in other projects' readers."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict

import pytest
import torch
from golden_fill import fill, relative_error
from plain_networks import to_kair
from safetensors.torch import save_file
from spandrel import ModelLoader
from torch import nn

from pipeline.errors import CheckpointError
from pipeline.models.discriminators import (
    ImageDiscriminator,
    ImageOptions,
    PatchDiscriminator,
    PatchOptions,
    UNetDiscriminator,
    UNetOptions,
    load_discriminator_weights,
    save_discriminator,
)
from pipeline.models.discriminators.sed_layout import to_sed
from pipeline.models.generators import (
    RRDBNet,
    SRVGGNetCompact,
    SwinIR,
    build_generator,
    load_generator,
    load_generator_weights,
    recognise_generator,
    save_generator,
)
from pipeline.weights.files import read_metadata, read_weights

RRDB = {"num_features": 16, "num_blocks": 2, "growth_channels": 32}


def small_swinir(scale: int, **options) -> SwinIR:
    return SwinIR(scale, embed_dim=12, depths=[2, 2], num_heads=[2, 3], training_size_px=16, **options)


GENERATORS = [
    ("ESRGAN", 4, lambda: RRDBNet(**RRDB, scale=4)),
    ("ESRGAN", 2, lambda: RRDBNet(**RRDB, scale=2)),
    ("ESRGAN", 2, lambda: RRDBNet(**RRDB, scale=2, unshuffle_factor=1)),
    ("ESRGAN", 1, lambda: RRDBNet(**RRDB, scale=1, unshuffle_factor=1)),
    ("ESRGAN", 1, lambda: RRDBNet(**RRDB, scale=1)),
    ("ESRGAN", 16, lambda: RRDBNet(**RRDB, scale=16)),
    ("Compact", 2, lambda: SRVGGNetCompact(16, 2, 2)),
    ("Compact", 3, lambda: SRVGGNetCompact(16, 2, 3)),
    ("Compact", 4, lambda: SRVGGNetCompact(16, 2, 4)),
    ("SwinIR", 2, lambda: small_swinir(2)),
    ("SwinIR", 3, lambda: small_swinir(3)),
    ("SwinIR", 4, lambda: small_swinir(4)),
    ("SwinIR", 2, lambda: small_swinir(2, upsampler="pixelshuffledirect")),
    ("SwinIR", 4, lambda: small_swinir(4, upsampler="nearest+conv", residual_connection="3conv")),
]


@pytest.mark.parametrize(("architecture", "scale", "build"), GENERATORS)
def test_exported_generator_read_by_spandrel_gives_the_same_output(architecture, scale, build, tmp_path):
    torch.manual_seed(0)
    generator = build().eval()
    save_generator(tmp_path / "generator.safetensors", generator)
    theirs = ModelLoader(device="cpu").load_from_file(tmp_path / "generator.safetensors").eval()
    lq = torch.rand(1, 3, 20, 28)  # whole blocks of every fold: borders are each program's own
    with torch.no_grad():
        got, wanted = theirs.model(lq), generator(lq)
    assert (theirs.architecture.id, theirs.scale) == (architecture, scale)
    assert relative_error(got, wanted) < 1e-5


@pytest.mark.parametrize(("architecture", "scale", "build"), [*GENERATORS, ("x3", 3, lambda: RRDBNet(**RRDB, scale=3))])
def test_exported_generator_loaded_again_is_the_same_network(architecture, scale, build, tmp_path):
    torch.manual_seed(0)
    generator = build()
    path = tmp_path / "generator.safetensors"
    save_generator(path, generator, {"modelspec.title": "a title"})
    loaded = load_generator(path)
    assert (type(loaded), loaded.scale, loaded.training) == (type(generator), scale, False)
    assert same_state(loaded, generator)
    metadata = read_metadata(path)
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"
    assert metadata["modelspec.title"] == "a title"


def same_state(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def first_esrgan_release(network: RRDBNet) -> dict[str, torch.Tensor]:
    steps = len(network.upsampling_steps)
    names = {"conv_first": 0, "conv_hr": 3 * steps + 2, "conv_last": 3 * steps + 4}
    names |= {f"conv_up{step}": 3 * step for step in range(1, steps + 1)}
    state = {}
    for name, tensor in network.state_dict().items():
        module, kind = name.rsplit(".", 1)
        inner = re.match(r"body\.(\d+)\.rdb(\d)\.conv(\d)", module)
        if inner:
            module = "model.1.sub.{}.RDB{}.conv{}.0".format(*inner.groups())
        else:
            module = "model.1.sub.2" if module == "conv_body" else f"model.{names[module]}"
        state[f"{module}.{kind}"] = tensor
    return state


@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: network.state_dict(),
        lambda network: to_kair(network.state_dict()),
        first_esrgan_release,
        lambda network: {"params": {}, "params_ema": network.state_dict()},
        lambda network: {"params": network.state_dict()},
        lambda network: {"model": {f"module.{name}": t for name, t in to_kair(network.state_dict()).items()}},
        lambda network: {f"module._orig_mod.{name}": t.double() for name, t in network.state_dict().items()},
        lambda network: {"state_dict": {f"netG.{name}": t for name, t in network.state_dict().items()}},
    ],
    ids=["ours", "kair", "esrgan-1", "params_ema", "params", "sed-ddp", "compiled", "netG"],
)
def test_rrdb_in_any_layout_is_recognised_and_loaded(wrap):
    torch.manual_seed(0)
    network = RRDBNet(**RRDB, scale=4)
    wrapped = wrap(network)
    loaded = build_generator(recognise_generator(wrapped))
    load_generator_weights(loaded, wrapped)
    assert same_state(loaded, network)


@pytest.mark.parametrize("layout", [lambda network: network.state_dict(), first_esrgan_release], ids=["new", "old"])
@pytest.mark.parametrize("scale", [1, 2, 4, 8, 16])
def test_rrdb_of_any_number_of_upsampling_steps_is_recognised(layout, scale):
    network = RRDBNet(**RRDB, scale=scale, unshuffle_factor=1)
    loaded = build_generator(recognise_generator(layout(network)))
    load_generator_weights(loaded, layout(network))
    assert loaded.scale == scale
    assert same_state(loaded, network)


def test_official_swinir_state_is_recognised_with_its_sizes():
    state = fill("swinir_e24_d22_h22_w8")
    index = torch.zeros(64, 64, dtype=torch.long)
    for layer in range(2):
        blocks = f"layers.{layer}.residual_group.blocks"
        state |= {f"{blocks}.{block}.attn.relative_position_index": index for block in range(2)}
        state[f"{blocks}.1.attn_mask"] = torch.zeros(4, 64, 64)
    network = build_generator(recognise_generator({"params": state}))
    load_generator_weights(network, {"params": state})
    assert isinstance(network, SwinIR)
    assert (network.scale, network.window_px, network.training_size_px) == (4, 8, 16)


PLAIN = {"semantic": False, "num_features": 8}
SEMANTIC = {"semantic": True, "num_features": 8}
SED = [("sed_p", PatchDiscriminator, PatchOptions), ("sed_u", UNetDiscriminator, UNetOptions)]


@pytest.mark.parametrize(("name", "network", "options"), SED)
def test_released_sed_weights_are_exported_as_they_came(name, network, options, tmp_path):
    state = fill(name)
    discriminator = network(64, semantic_channels=1024)
    load_discriminator_weights(discriminator, {f"module.{key}": tensor for key, tensor in state.items()})
    path = tmp_path / "discriminator.safetensors"
    save_discriminator(path, options(semantic=True, num_features=64), discriminator.state_dict(), {"images_seen": "8"})
    exported = read_weights(path)
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[key], state[key]) for key in state)
    metadata = read_metadata(path)
    assert (metadata["architecture"], metadata["layout"], metadata["semantic"]) == (options.architecture, "sed", "true")
    assert metadata["images_seen"] == "8"


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (PatchDiscriminator(8), PatchOptions(semantic=False, num_features=8)),
        (PatchDiscriminator(8, 64, residual=True), PatchOptions(semantic=True, num_features=8, residual=True)),
        (
            UNetDiscriminator(8, 64, placement="encoder"),
            UNetOptions(semantic=True, num_features=8, placement="encoder"),
        ),
        (ImageDiscriminator(8, 64), ImageOptions(semantic=True, num_features=8)),
    ],
    ids=["plain", "residual", "encoder", "image"],
)
def test_discriminator_that_sed_does_not_have_is_exported_in_our_layout(network, options, tmp_path):
    path = tmp_path / "discriminator.safetensors"
    save_discriminator(path, options, network.state_dict(), {})
    exported = read_weights(path)
    assert read_metadata(path)["layout"] == "sed-trainer"
    assert exported.keys() == network.state_dict().keys()
    load_discriminator_weights(network, exported)


def test_parametrised_spectral_norm_is_read_too():
    discriminator = UNetDiscriminator(8)
    state = to_sed(discriminator.state_dict())
    new = {"orig": "parametrizations.weight.original", "u": "parametrizations.weight.0._u"}
    new["v"] = "parametrizations.weight.0._v"
    renamed = {re.sub(r"weight_(orig|u|v)$", lambda m: new[m[1]], key): tensor for key, tensor in state.items()}
    other = UNetDiscriminator(8)
    load_discriminator_weights(other, renamed)
    assert renamed.keys() != state.keys()
    assert same_state(other, discriminator)


@pytest.mark.parametrize("network", [PatchDiscriminator, UNetDiscriminator, ImageDiscriminator])
def test_own_discriminator_state_is_loaded_as_it_is(network):
    discriminator, other = network(8, semantic_channels=64), network(8, semantic_channels=64)
    load_discriminator_weights(other, discriminator.state_dict())
    assert same_state(other, discriminator)


def test_weights_that_do_not_fit_are_refused_whole_with_every_kind_of_fault():
    network = RRDBNet(**RRDB)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = to_kair(RRDBNet(**RRDB).state_dict())
    del state["HRconv.bias"]
    state["stranger"] = torch.zeros(1)
    state["conv_last.weight"] = torch.zeros(3, 8, 3, 3)
    with pytest.raises(CheckpointError) as refused:
        load_generator_weights(network, state)
    text = str(refused.value)
    assert "missing conv_hr.bias" in text
    assert "unexpected stranger" in text
    assert "misshapen conv_last.weight: got (3, 8, 3, 3), needs (3, 16, 3, 3)" in text
    num_entries = len(before)
    assert f"its {num_entries} entries: 1 missing, 1 misshapen; of the {num_entries} given: 1 unexpected" in text
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_weights_of_another_network_are_counted_and_sampled_kind_by_kind():
    network, state = SRVGGNetCompact(8, 1, 2), RRDBNet(**RRDB).state_dict()
    with pytest.raises(CheckpointError) as refused:
        load_generator_weights(network, state)
    num_given, num_wanted = len(state), len(network.state_dict())
    text = str(refused.value)
    assert f"Of its {num_wanted} entries: {num_wanted} missing, 0 misshapen" in text
    assert f"of the {num_given} given: {num_given} unexpected" in text
    assert (text.count("\n  missing "), text.count("\n  unexpected ")) == (4, 4)
    assert text.endswith(f"and {num_given + num_wanted - 8} more")


def test_generator_of_no_registered_architecture_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"expected a bare generator \(RRDBNet, SwinIR, .*got Sequential"):
        save_generator(tmp_path / "generator.safetensors", nn.Sequential())
    assert list(tmp_path.iterdir()) == []


def test_generator_file_whose_sizes_do_not_fit_together_is_refused_with_its_name(tmp_path):
    state = {name: t.clone() for name, t in SRVGGNetCompact(8, 1, 2).state_dict().items()}
    state["body.4.weight"] = torch.zeros(1, 8, 3, 3)
    save_file(state, tmp_path / "g.safetensors")
    with pytest.raises(CheckpointError, match=r"g\.safetensors.*looks like the generator compact.*scale=0"):
        load_generator(tmp_path / "g.safetensors")


def test_discriminator_weights_are_no_generator(tmp_path):
    save_file(
        {name: t.clone() for name, t in PatchDiscriminator(8).state_dict().items()},
        tmp_path / "d.safetensors",
    )
    with pytest.raises(CheckpointError, match=r"d\.safetensors.*no generator known here"):
        load_generator(tmp_path / "d.safetensors")


class _RunsCode:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_pickle_that_would_run_code_is_refused_with_its_name(tmp_path):
    path = tmp_path / "bad.pth"
    torch.save({"params": {"conv_first.weight": torch.zeros(1)}, "extra": _RunsCode()}, path)
    with pytest.raises(CheckpointError, match=r"bad\.pth: refused.*exec"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("kept", [0, 40, 2000])
def test_truncated_file_is_refused(suffix, kept, tmp_path):
    path = tmp_path / f"weights{suffix}"
    state = SRVGGNetCompact(8, 1, 2).state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=rf"weights\{suffix}"):
        read_weights(path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such weight file"):
        read_weights(tmp_path / "nothing.pth")


def test_whole_training_object_is_refused(tmp_path):
    torch.save([1, 2, 3], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        read_weights(tmp_path / "list.pth")


class _Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Sequential(OrderedDict([("0", nn.Conv2d(3, 4, 3)), ("bn", nn.BatchNorm2d(4))]))
        self.scale = nn.Parameter(torch.ones(2, 3).half())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.visual(image) * self.scale.sum()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_archive_is_read_without_its_program(tmp_path):
    module = _Nested()
    torch.jit.save(torch.jit.script(module), tmp_path / "clip.pt")
    state = read_weights(tmp_path / "clip.pt")
    wanted = module.state_dict()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert state["scale"].dtype == torch.float16


def test_torchscript_archive_that_asks_for_more_is_refused(tmp_path):
    stream = io.BytesIO()
    pickle.dump(_RunsCode(), stream, protocol=2)
    with zipfile.ZipFile(tmp_path / "clip.pt", "w") as archive:
        archive.writestr("clip/data.pkl", stream.getvalue())
        archive.writestr("clip/constants.pkl", b"")
    with pytest.raises(CheckpointError, match=r"refused.*exec"):
        read_weights(tmp_path / "clip.pt")


def test_torchscript_archive_without_a_module_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "clip.pt", "w") as archive:
        archive.writestr("clip/data.pkl", pickle.dumps([1, 2]))
        archive.writestr("clip/constants.pkl", b"")
    with pytest.raises(CheckpointError, match=r"clip\.pt.*holds a list"):
        read_weights(tmp_path / "clip.pt")


def test_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "generator.safetensors"
    save_generator(path, SRVGGNetCompact(8, 1, 2))
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_generator(path, SRVGGNetCompact(8, 1, 2))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
