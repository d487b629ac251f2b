"""Generators: one file or folder per architecture, and the registry that everything else goes through."""

from typing import TYPE_CHECKING

from pipeline.models.generators.compact_options import CompactOptions
from pipeline.models.generators.options import GENERATORS, FromFileOptions, GeneratorName, GeneratorOptions
from pipeline.models.generators.rrdb_options import RRDBOptions
from pipeline.models.generators.semantic_compact_options import SemanticCompactOptions
from pipeline.models.generators.spandrel.options import PREFIX, SpandrelOptions, how_to_try, usable_names
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
        resolve_generator,
        save_generator,
        start_generator,
    )
    from pipeline.models.generators.rrdb import RRDBNet
    from pipeline.models.generators.swinir.network import SwinIR

GENERATORS.announce(RRDBOptions, "pipeline.models.generators.rrdb")
GENERATORS.announce(SwinIROptions, "pipeline.models.generators.swinir.architecture")
GENERATORS.announce(CompactOptions, "pipeline.models.generators.compact")
GENERATORS.announce(SemanticCompactOptions, "pipeline.models.generators.semantic_compact")
# Last: files are offered to the architectures in this order, and importing spandrel takes seconds.
GENERATORS.announce(
    SpandrelOptions,
    "pipeline.models.generators.spandrel.architecture",
    [f"{PREFIX}{name}" for name in usable_names()],
)
GENERATORS.advise(PREFIX, how_to_try)

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
            "resolve_generator",
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
    "FromFileOptions",
    "Generator",
    "GeneratorArchitecture",
    "GeneratorName",
    "GeneratorOptions",
    "RRDBNet",
    "RRDBOptions",
    "SRVGGNetCompact",
    "SemanticCompactOptions",
    "SpandrelOptions",
    "SwinIR",
    "SwinIROptions",
    "build_generator",
    "initial_generator_weights",
    "load_generator",
    "load_generator_weights",
    "recognise_generator",
    "resolve_generator",
    "save_generator",
    "start_generator",
]
