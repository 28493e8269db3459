"""Penalties that bring the codes of an autoencoder to the standard normal prior, one method a file."""
