"""SeD in other people's trainers: the loop of docs/integrate.md, and what importing the public names takes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import sed_trainer
from sed_trainer import ConditionedDiscriminator, PatchDiscriminator, build_semantic_extractor

ROOT = Path(__file__).parents[2]


def plain_loop() -> str:
    """The first block of code of the document, with weights that need no download."""
    (loop,) = re.findall(
        r"## A plain PyTorch loop.*?```python\n(.*?)```", (ROOT / "docs/integrate.md").read_text(), re.S
    )
    return loop.replace('weights="pretrained"', 'weights="random"')


def test_loop_of_the_document_trains_both_networks() -> None:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
    start = [parameter.clone() for parameter in generator.parameters()]
    names = {"generator": generator, "batches": [(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 32, 32))] * 2}
    exec(plain_loop(), names | {"device": "cpu"}, names)
    assert all(not torch.equal(*pair) for pair in zip(start, generator.parameters(), strict=True))
    losses = names["discriminator"], names["real"], names["fake"]
    assert all(parameter.grad is not None for parameter in losses[0].parameters())
    assert losses[1].mean() > losses[2].mean()  # it tells this HR crop from this output


@pytest.fixture(scope="module")
def judge() -> ConditionedDiscriminator:
    extractor = build_semantic_extractor("open_clip:RN50", layer=1, weights="random")
    return ConditionedDiscriminator(PatchDiscriminator(8, extractor.channels, residual=True), extractor)


def test_conditioned_discriminator_is_the_discriminator_with_the_semantics_of_the_crops(
    judge: ConditionedDiscriminator,
) -> None:
    gt, sr = torch.rand(2, 2, 3, 32, 32).unbind()
    judge.eval().look_at(gt)
    (extractor,) = judge._extractor
    assert torch.equal(judge(sr), judge.discriminator(sr, extractor(gt)))
    judge.look_at(gt.flip(0))
    assert not torch.equal(judge(sr), judge.discriminator(sr, extractor(gt)))


def test_conditioned_discriminator_saves_and_trains_the_discriminator_alone(judge: ConditionedDiscriminator) -> None:
    assert len(list(judge.parameters())) == len(list(judge.discriminator.parameters()))
    assert judge.state_dict().keys() == {f"discriminator.{name}" for name in judge.discriminator.state_dict()}


def test_conditioned_discriminator_before_its_first_look_says_what_to_call() -> None:
    with pytest.raises(RuntimeError, match=r"call look_at\(gt\) with the HR crops"):
        ConditionedDiscriminator(PatchDiscriminator(8, 64), nn.Identity())(torch.rand(1, 3, 32, 32))


def test_public_names_take_torch_and_no_launcher_tracker_or_cluster() -> None:
    program = f"""
import sys
from sed_trainer import {", ".join(sed_trainer.__all__)}
print(*{{"ray", "mlflow", "deepspeed", "accelerate", "webdataset", "matplotlib", "spandrel"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
