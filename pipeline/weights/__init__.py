"""Anyone's weight files: read without executing anything, hashed, converted."""
