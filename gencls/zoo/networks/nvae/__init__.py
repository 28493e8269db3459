"""Hierarchical variational autoencoders."""
