"""Options of the generators that spandrel has, and the list of those that are tested. Nothing here imports torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import refuse
from pipeline.models.generators.options import GeneratorName, GeneratorOptions

PREFIX = "spandrel:"
"""Begins the name of an architecture that spandrel has."""

UNTESTED = "SED_UNTESTED_GENERATORS"
"""Environment variable with the names of further architectures, separated by commas, to be tried at one's own risk."""


@dataclass(frozen=True)
class Tested:
    """What is known of an architecture that is tested here.

    Attributes:
        paper: Where it is from, on arXiv.
        licence: Of spandrel's copy of its code.
        has_fp16: Whether spandrel holds it safe in half precision; bf16 suits them all.
        derived: Pattern of tensors that the network itself computes from the others when it is evaluated.
        tables: Index tables that a file needs besides the weights, for a reader to know the sizes.
        prefixes: What the names in its official files begin with.
        ignored: Pattern of names in its official files that are no weights.
    """

    paper: str
    licence: str
    has_fp16: bool = False
    derived: str = ""
    tables: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    ignored: str = ""


TESTED: Mapping[str, Tested] = {
    "ATD": Tested("2401.08209", "Apache-2.0"),
    "DAT": Tested("2308.03364", "Apache-2.0"),
    "DITN": Tested("2308.02794", "Apache-2.0", has_fp16=True),
    "DRCT": Tested("2404.00722", "MIT"),
    "GRL": Tested(
        "2303.00748",
        "MIT",
        tables=("table_w", "table_sh", "index_sh_a2w"),
        prefixes=("model.", "model_g."),
        ignored=r"(table|index|mask)_(w|s[hv])(_a2w|_w2a)?$",
    ),
    "HAT": Tested("2205.04437", "MIT"),
    "MoSR": Tested("", "MIT", has_fp16=True),
    "OmniSR": Tested("2304.10244", "Apache-2.0", has_fp16=True, ignored=r".*total_(ops|params)$"),
    "RCAN": Tested("1807.02758", "MIT"),
    "RGT": Tested("2308.05022", "Apache-2.0"),
    "RealPLKSR": Tested("2404.11848", "MIT"),
    "SAFMN": Tested("2302.13800", "Apache-2.0"),
    "SPAN": Tested("2311.12770", "Apache-2.0", has_fp16=True, derived=r".*\.eval_conv\.(weight|bias)$"),
}
"""Each trains with the discriminator, resumes to the same bits, and is read back by spandrel with the same output."""


@dataclass(frozen=True, kw_only=True)
class SpandrelOptions(GeneratorOptions):
    """Options of an architecture of spandrel."""

    architecture: GeneratorName
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """Sizes by spandrel's names (embed_dim, depths, ...), as a table or as NAME=VALUE; what is left out has spandrel's
    default. A name that the architecture does not have is refused with those that it has."""

    def __post_init__(self) -> None:
        """Check that the architecture is one of spandrel's."""
        super().__post_init__()
        is_ours = self.architecture.startswith(PREFIX)
        refuse([None if is_ours else f"SpandrelOptions are not the options of {self.architecture!r}"])


def usable_names() -> tuple[str, ...]:
    """Return the architectures by spandrel's names: those tested here, then those that the environment adds."""
    added = (name.strip() for name in os.environ.get(UNTESTED, "").split(","))
    return tuple(dict.fromkeys((*TESTED, *(name for name in added if name))))


def tested_names() -> str:
    """Return the architectures that are tested, as configurations name them."""
    return ", ".join(f"{PREFIX}{tested}" for tested in TESTED)


def how_to_try(name: str) -> str:
    """Say which architectures are tested, and how to use another one of spandrel's."""
    return (
        f"those tested here are {tested_names()}; to try another one that spandrel has, at your own risk, set "
        f"{UNTESTED}={name} in the environment"
    )
