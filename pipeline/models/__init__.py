"""Networks: generators, discriminators, the semantic-aware fusion block, and other projects' weights."""

from pipeline.models.generator_inference import infer_generator
from pipeline.models.image_discriminator import ImageDiscriminator
from pipeline.models.interop import (
    load_generator,
    load_reference_state_dict,
    save_generator,
    to_reference_state_dict,
)
from pipeline.models.patch_discriminator import PatchDiscriminator
from pipeline.models.rrdb import RRDBNet
from pipeline.models.semantic_fusion import SemanticFusionBlock
from pipeline.models.semantics import SemanticExtractor, build_backbone, build_semantic_extractor
from pipeline.models.srvgg import SRVGGNetCompact
from pipeline.models.swinir import SwinIR
from pipeline.models.unet_discriminator import UNetDiscriminator
from pipeline.weights import read_weights

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
