"""What the discriminator of a run sees: its decisions, the features behind them, and its attention, as pictures."""
