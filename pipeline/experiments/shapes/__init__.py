"""Generated photos in which texture depends on meaning: what they show is known, so mistakes can be counted."""
