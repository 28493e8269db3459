"""Transforms that put an image through a generative model before it is classified."""
