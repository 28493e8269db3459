"""Conditional GANs, their discriminators, and encoders of their codes."""
