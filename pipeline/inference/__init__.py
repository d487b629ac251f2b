"""Upscaling, evaluation, promotion, pictures, feature caching, and models by name."""
