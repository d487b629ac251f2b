"""One training run: assembly, resume, inputs of a step, dry run, run folder."""
