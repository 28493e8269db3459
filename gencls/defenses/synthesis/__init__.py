"""Classifiers that analyse an image by synthesising it, once per class."""
