"""Classifiers that decide by what happens to an image under Gaussian noise."""
