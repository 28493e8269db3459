"""Parts of recipes/variational_smoothing.py."""
