"""Code that all recipes share; a paper adds its settings, its experiments and its tables."""
