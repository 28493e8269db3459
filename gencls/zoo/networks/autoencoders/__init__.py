"""Generative autoencoders, the penalties that bring their codes to the prior, and their use as purifiers."""
