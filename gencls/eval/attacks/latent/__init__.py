"""Attacks on the latent codes of generative models."""
