"""Generators of the library spandrel: which are tested here, how they are built, recognised, trained and written."""
