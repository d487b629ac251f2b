"""The page of a comparison: its results in one HTML file that requires no other."""
