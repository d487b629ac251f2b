"""The law of degradations: recipes, draws, crops, parameters, MATLAB's bicubic."""
