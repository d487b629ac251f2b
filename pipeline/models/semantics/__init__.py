"""Frozen vision models: an image to a semantic map on the discriminator's grid."""
