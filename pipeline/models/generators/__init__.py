"""Generators: one file or folder per architecture, and the registry that everything else goes through."""

from typing import TYPE_CHECKING

from pipeline.models.generators.compact_options import CompactOptions
from pipeline.models.generators.options import GENERATORS, GeneratorName, GeneratorOptions
from pipeline.models.generators.rrdb_options import RRDBOptions
from pipeline.models.generators.swinir.options import SwinIROptions
from pipeline.registry import imported_on_first_use

if TYPE_CHECKING:
    from pipeline.models.generators.compact import SRVGGNetCompact
    from pipeline.models.generators.contract import Generator, GeneratorArchitecture, build_generator
    from pipeline.models.generators.files import (
        initial_generator_weights,
        load_generator,
        load_generator_weights,
        recognise_generator,
        save_generator,
        start_generator,
    )
    from pipeline.models.generators.rrdb import RRDBNet
    from pipeline.models.generators.swinir.network import SwinIR

GENERATORS.announce(RRDBOptions, "pipeline.models.generators.rrdb")
GENERATORS.announce(SwinIROptions, "pipeline.models.generators.swinir.architecture")
GENERATORS.announce(CompactOptions, "pipeline.models.generators.compact")

__getattr__ = imported_on_first_use(
    __name__,
    {
        "compact": ["SRVGGNetCompact"],
        "contract": ["Generator", "GeneratorArchitecture", "build_generator"],
        "files": [
            "initial_generator_weights",
            "load_generator",
            "load_generator_weights",
            "recognise_generator",
            "save_generator",
            "start_generator",
        ],
        "rrdb": ["RRDBNet"],
        "swinir.network": ["SwinIR"],
    },
)

__all__ = [
    "GENERATORS",
    "CompactOptions",
    "Generator",
    "GeneratorArchitecture",
    "GeneratorName",
    "GeneratorOptions",
    "RRDBNet",
    "RRDBOptions",
    "SRVGGNetCompact",
    "SwinIR",
    "SwinIROptions",
    "build_generator",
    "initial_generator_weights",
    "load_generator",
    "load_generator_weights",
    "recognise_generator",
    "save_generator",
    "start_generator",
]
