"""SwinIR: the network, its windows and its upsamplers."""
