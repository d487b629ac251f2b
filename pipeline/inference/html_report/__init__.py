"""An HTML report of models on evaluation sets: numbers, comparison sliders, curves and attention, in one file."""
