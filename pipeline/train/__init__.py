"""The GAN step and the training loop, one function each; no file formats, no tracking library."""
