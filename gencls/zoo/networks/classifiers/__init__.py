"""Discriminative classifiers, and the layouts in which others publish theirs."""
