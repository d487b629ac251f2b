"""Upscale, evaluate, pictures, features, and the models that people name."""
