"""Degradation recipes, the draws and crops of a sample, its parameters, and MATLAB's bicubic."""
