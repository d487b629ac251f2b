"""Training, evaluation and tracking; see DESIGN in the README for the rooms and who may import whom."""
