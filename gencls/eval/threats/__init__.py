"""Threats: what an adversary may change, and how far two images are apart."""
