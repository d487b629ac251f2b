"""The GAN step, one function, and the training loop, one function; no file formats, no tracking library."""
