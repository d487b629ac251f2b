"""Generators: one file or folder per architecture, and the registry that everything else goes through."""

from pipeline.models.generators.compact import CompactArchitecture, CompactOptions, SRVGGNetCompact
from pipeline.models.generators.contract import (
    GENERATORS,
    Generator,
    GeneratorArchitecture,
    GeneratorName,
    GeneratorOptions,
    build_generator,
)
from pipeline.models.generators.files import (
    load_generator,
    load_generator_weights,
    recognise_generator,
    save_generator,
    start_generator,
)
from pipeline.models.generators.rrdb import RRDBArchitecture, RRDBNet, RRDBOptions
from pipeline.models.generators.swinir.architecture import SwinIRArchitecture, SwinIROptions
from pipeline.models.generators.swinir.network import SwinIR

GENERATORS.add(RRDBArchitecture())
GENERATORS.add(SwinIRArchitecture())
GENERATORS.add(CompactArchitecture())

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
    "load_generator",
    "load_generator_weights",
    "recognise_generator",
    "save_generator",
    "start_generator",
]
