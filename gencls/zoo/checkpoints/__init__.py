"""Weights on disk: ours with their cards, and other people's."""
