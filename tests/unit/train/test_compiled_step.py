"""What runtime.compile and runtime.channels_last do to the networks changes nothing of a step."""

from __future__ import annotations

import contextlib

import torch
from gans import both, losses
from torch import Tensor, nn
from torch._dynamo.utils import counters

from pipeline.models.discriminators import PatchDiscriminator
from pipeline.models.generators import RRDBNet, SRVGGNetCompact
from pipeline.runtime.compilation import compile_network
from pipeline.runtime.trainable import DdpTrainable
from pipeline.train.gan_step import Adversary, Gan, gan_step
from pipeline.train.micro_batches import StepInput

CHANNELS = 64


def train(memory_format: torch.memory_format, *, compiles: bool) -> dict[str, Tensor]:
    """Two steps, as a session makes them; returns weights and buffers."""
    torch.manual_seed(0)
    networks: list[nn.Module] = [SRVGGNetCompact(8, 1, 4), PatchDiscriminator(8, CHANNELS)]
    trained = []
    for network in networks:
        network.to(memory_format=memory_format)
        trained.append(DdpTrainable(network, network, torch.optim.SGD(network.parameters(), 1.0, fused=True), 0.0))
        if compiles:
            # All of torch.compile but its code generator, whose C++ takes minutes on a CPU.
            network.compile(backend="aot_eager")
    gan = Gan(trained[0], (Adversary(trained[1]),), losses(adversarial_weight=0.1), networks[0], contextlib.nullcontext)
    for _ in range(2):
        gt = torch.rand(2, 3, 32, 32).contiguous(memory_format=memory_format)
        lq = torch.rand(2, 3, 8, 8).contiguous(memory_format=memory_format)
        gan_step(gan, StepInput(lq, gt, gt, torch.rand(2, CHANNELS, 2, 2)), both(0.1))
    return {
        f"{number}.{name}": value for number, net in enumerate(networks) for name, value in net.state_dict().items()
    }


def test_repeated_blocks_compile_once() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    network, lq = RRDBNet(8, 3, 4, 4), torch.rand(1, 3, 8, 8)
    expected = network(lq)
    counters.clear()
    compile_network(network, backend="aot_eager")
    torch.testing.assert_close(network(lq), expected)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


def test_step_when_compiled_and_channels_last_is_the_plain_one() -> None:
    plain = train(torch.contiguous_format, compiles=False)
    for compiles in (False, True):
        other = train(torch.channels_last, compiles=compiles)
        assert other.keys() == plain.keys()
        for name, value in plain.items():
            torch.testing.assert_close(other[name].contiguous(), value, rtol=1e-5, atol=1e-6, msg=name)
