"""Generative autoencoders: what their encoders answer, and the penalties that bring their codes to the prior."""
