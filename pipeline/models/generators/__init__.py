"""Generators: one file or folder per architecture."""
