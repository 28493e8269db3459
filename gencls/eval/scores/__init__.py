"""Asks a defense for scores, and finds out what they say."""
