"""What only a CUDA device can show: the same numbers as on a CPU, and bf16 close to float32."""

from __future__ import annotations

import pytest
import torch

from pipeline.models import PatchDiscriminator, RRDBNet, UNetDiscriminator, build_semantic_extractor

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


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
