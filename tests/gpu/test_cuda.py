"""What only a CUDA device can show: the same numbers as on a CPU, and bf16 close to float32."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import pytest
import torch
from gans import both, losses, report
from torch import Tensor, nn

from pipeline.data.augmentation import DrawnAugmentation, stack_augmentations
from pipeline.data.batch import Batch, Images
from pipeline.degrade import Augmentation, degrade, stack_parameters
from pipeline.losses import ImageTerm, PerceptualLoss
from pipeline.models.discriminators import PatchDiscriminator, UNetDiscriminator
from pipeline.models.generators import RRDBNet
from pipeline.models.semantics.extractor import build_semantic_extractor
from pipeline.run.inputs import StepInputs
from pipeline.runtime.compilation import compile_network
from pipeline.runtime.trainable import DdpTrainable
from pipeline.train.ema import MovingAverage
from pipeline.train.gan_step import Adversary, Gan, Turn, gan_step, gan_step_shared_pass
from pipeline.train.graphed_step import GraphedStep
from pipeline.train.micro_batches import StepInput
from shards.degradation.draws import variant_seed
from shards.degradation.parameters import draw_parameters
from shards.degradation.recipe import load_recipe

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """Convolutions without TF32; matrix products have none by default."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


@pytest.mark.parametrize("network", [PatchDiscriminator, UNetDiscriminator])
def test_discriminator_on_cuda_agrees_with_the_cpu(network: type[PatchDiscriminator]) -> None:
    torch.manual_seed(0)
    discriminator = network(16, 64).eval()
    image, semantics = torch.rand(2, 3, 64, 64), torch.rand(2, 64, 4, 4)
    expected = discriminator(image, semantics)
    got = discriminator.cuda()(image.cuda(), semantics.cuda()).cpu()
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-4


def test_generator_in_bf16_is_close_to_float32() -> None:
    torch.manual_seed(0)
    generator = RRDBNet(16, 2, 8, 4).eval().cuda()
    lq = torch.rand(2, 3, 32, 32, device="cuda")
    with torch.inference_mode():
        expected = generator(lq)
        with torch.autocast("cuda", torch.bfloat16):
            got = generator(lq).float()
    assert float((got - expected).abs().max() / expected.abs().max()) < 0.05


def test_semantics_on_cuda_agree_with_the_cpu() -> None:
    extractor = build_semantic_extractor(layer=2, weights="random")
    image = torch.rand(2, 3, 64, 64)
    expected = extractor(image)
    got = extractor.cuda()(image.cuda()).cpu()
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-4


class Trainer:
    """Both networks, small, as a session builds them."""

    def __init__(
        self,
        device: str,
        *,
        shares: bool = True,
        precision: str = "float32",
        compiles: bool = False,
        replays: bool = False,
        network: type[nn.Module] = PatchDiscriminator,
    ) -> None:
        torch.manual_seed(0)
        networks: list[nn.Module] = [RRDBNet(16, 2, 8, 4), network(16, 64)]
        perceptual = PerceptualLoss(weights="random").to(device).to(memory_format=torch.channels_last)
        for network in networks:
            network.to(device).to(memory_format=torch.channels_last)
        optimizers = [
            torch.optim.Adam(network.parameters(), fused=True, capturable=True)
            if replays
            else torch.optim.SGD(network.parameters(), 0.1, fused=True)
            for network in networks
        ]
        trained = [
            DdpTrainable(network, network, optimizer, 1.0)
            for network, optimizer in zip(networks, optimizers, strict=True)
        ]
        self.average = MovingAverage(networks[0])
        for network in networks if compiles else ():
            compile_network(network)
        autocast = functools.partial(torch.autocast, device, torch.bfloat16, enabled=precision == "bf16")
        terms = losses(1.0, ImageTerm("perceptual", 0.1, perceptual), adversarial_weight=0.1)
        self.gan = Gan(trained[0], (Adversary(trained[1]),), terms, self.average.module, autocast)
        self.gan_step = gan_step_shared_pass if shares else gan_step
        self.networks = networks
        lq, gt, semantics = (torch.rand(2, *shape) for shape in ((3, 16, 16), (3, 64, 64), (64, 4, 4)))
        lq, gt = (image.to(device).contiguous(memory_format=torch.channels_last) for image in (lq, gt))
        self.input = StepInput(lq, gt, gt, semantics.to(device))

    def step(self) -> dict[str, Tensor]:
        """One step; returns its scalars, on the device."""
        result = self.gan_step(self.gan, self.input, both(0.1))
        self.average.update(0.9)
        return report(result)

    def weights(self) -> dict[str, Tensor]:
        """All weights and buffers, on the CPU."""
        return {
            f"{number}.{name}": value.cpu()
            for number, network in enumerate(self.networks)
            for name, value in network.state_dict().items()
        }


@pytest.mark.parametrize("shares", [False, True])
def test_step_on_cuda_agrees_with_the_cpu(shares: bool) -> None:
    trainers = [Trainer(device, shares=shares) for device in ("cpu", "cuda")]
    expected, got = ({name: float(value) for name, value in trainer.step().items()} for trainer in trainers)
    assert got == pytest.approx(expected, rel=1e-4, abs=1e-5)
    expected_weights, weights = (trainer.weights() for trainer in trainers)
    for name, value in expected_weights.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.fixture
def failing_at_waits() -> Iterator[None]:
    """Every operation that waits for the device raises, as far as torch knows them."""
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("network", [PatchDiscriminator, UNetDiscriminator])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.usefixtures("failing_at_waits")
def test_step_never_waits_for_the_device(precision: str, network: type[nn.Module]) -> None:
    trainer = Trainer("cuda", precision=precision, network=network)
    trainer.step()
    torch.cuda.set_sync_debug_mode("error")
    scalars = trainer.step()
    torch.cuda.set_sync_debug_mode("default")
    assert all(bool(value.isfinite()) for value in scalars.values())


@pytest.mark.parametrize("shares", [False, True])
def test_replayed_steps_are_the_plain_ones(shares: bool) -> None:
    trainer, other = (Trainer("cuda", shares=shares, replays=True) for _ in range(2))
    replayed, is_skipped = GraphedStep(other.gan_step), []
    kinds = (
        [Turn(1e-4, None)] * 5
        + [Turn(1e-4, 1e-4)] * 3
        + [Turn(1e-4, 1e-4, discriminator_rests=True)] * 5
        + [Turn(2e-4, 3e-4), Turn(1e-5, 1e-5)] * 2
        + [Turn(1e-4, None)]
    )
    for number, turn in enumerate(kinds):
        torch.manual_seed(number)
        images = [torch.rand_like(image) for image in (trainer.input.lq, trainer.input.gt)]
        if number == len(kinds) - 2:
            images[0][0, 0, 0, 0] = torch.nan
        batch = StepInput(images[0], images[1], images[1], trainer.input.semantics)
        expected, got = report(trainer.gan_step(trainer.gan, batch, turn)), report(replayed(other.gan, batch, turn))
        assert got.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-5, equal_nan=True, msg=f"{number} {name}")
        is_skipped.append(bool(got["generator/skipped"]))
    assert is_skipped == [number == len(kinds) - 2 for number in range(len(kinds))]
    weights = other.weights()
    for name, value in trainer.weights().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.usefixtures("failing_at_waits")
def test_batch_travels_and_is_degraded_without_waiting() -> None:
    recipe = load_recipe("realesrgan-1")
    seeds = [variant_seed(0, f"{index:064x}", 0) for index in range(3)]
    drawn = stack_parameters([draw_parameters(recipe, seed, scale=4, canvas_px=96, crop_px=64) for seed in seeds])
    pixels = torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8)
    batch = Batch((Images(pixels, None, drawn),), ("a", "b", "c")).pin_memory()
    prepare = StepInputs(None, contextlib.nullcontext, torch.channels_last)
    prepare(batch.to(torch.device("cuda")), False)
    torch.cuda.set_sync_debug_mode("error")
    got = prepare(batch.to(torch.device("cuda")), False)
    torch.cuda.set_sync_debug_mode("default")
    expected = degrade(pixels.float() / 255, drawn)
    assert float((got.lq.cpu() - expected.lq).abs().mean()) < 1e-3


@pytest.mark.usefixtures("failing_at_waits")
def test_batch_of_several_kinds_is_augmented_without_waiting() -> None:
    recipe = load_recipe("realesrgan-1")
    seeds = [variant_seed(0, f"{index:064x}", 0) for index in range(2)]
    drawn = stack_parameters([draw_parameters(recipe, seed, scale=4, canvas_px=96, crop_px=64) for seed in seeds])
    canvases, crops, lq = (torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8) for side in (96, 64, 16))
    augmentation = stack_augmentations(
        [
            DrawnAugmentation(Augmentation.CUTBLUR, box_px=(1, 9, 2, 12)),
            DrawnAugmentation(Augmentation.MIXUP, weight=0.25),
            DrawnAugmentation(Augmentation.CUTMIX, box_px=(0, 8, 4, 16)),
            DrawnAugmentation(),
        ]
    )
    images = (Images(canvases, None, drawn), Images(crops, lq, None))
    batch = Batch(images, ("a", "b", "c", "d"), order=torch.tensor([2, 0, 3, 1]), augmentation=augmentation)
    prepare, pinned = StepInputs(None, contextlib.nullcontext, torch.channels_last), batch.pin_memory()
    prepare(pinned.to(torch.device("cuda")), False)
    torch.cuda.set_sync_debug_mode("error")
    got = prepare(pinned.to(torch.device("cuda")), False)
    torch.cuda.set_sync_debug_mode("default")
    expected = prepare(batch, False)
    for ours, theirs in ((got.lq, expected.lq), (got.gt, expected.gt), (got.target, expected.target)):
        assert float((ours.cpu() - theirs).abs().mean()) < 1e-3


def test_compiled_step_in_bf16_is_close_to_the_plain_one() -> None:
    plain, compiled = Trainer("cuda"), Trainer("cuda", precision="bf16", compiles=True)
    for _ in range(3):
        expected, got = ({name: float(value) for name, value in each.step().items()} for each in (plain, compiled))
        assert got == pytest.approx(expected, rel=0.05, abs=0.02)
