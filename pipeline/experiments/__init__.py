"""Experiments: arms trained under one budget, compared over seeds and images."""
