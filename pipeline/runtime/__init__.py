"""Ranks, devices, precision and signals: the only room that knows accelerate and deepspeed."""
