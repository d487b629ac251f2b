"""The GAN step as phases, and the loop; knows no file formats and no tracking library."""
