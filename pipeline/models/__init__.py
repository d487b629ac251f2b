"""Networks: generators, discriminators, the semantic-aware fusion block, and other projects' weights."""

from pipeline.models.discriminators.image import ImageDiscriminator
from pipeline.models.discriminators.patch import PatchDiscriminator
from pipeline.models.discriminators.semantic_fusion import SemanticFusionBlock
from pipeline.models.discriminators.unet import UNetDiscriminator
from pipeline.models.generators.compact import SRVGGNetCompact
from pipeline.models.generators.inference import infer_generator
from pipeline.models.generators.rrdb import RRDBNet
from pipeline.models.generators.swinir.network import SwinIR
from pipeline.models.interop import (
    load_generator,
    load_reference_state_dict,
    save_generator,
    to_reference_state_dict,
)
from pipeline.models.semantics.extractor import SemanticExtractor, build_backbone, build_semantic_extractor
from pipeline.weights.files import read_weights

__all__ = [
    "ImageDiscriminator",
    "PatchDiscriminator",
    "RRDBNet",
    "SRVGGNetCompact",
    "SemanticExtractor",
    "SemanticFusionBlock",
    "SwinIR",
    "UNetDiscriminator",
    "build_backbone",
    "build_semantic_extractor",
    "infer_generator",
    "load_generator",
    "load_reference_state_dict",
    "read_weights",
    "save_generator",
    "to_reference_state_dict",
]
