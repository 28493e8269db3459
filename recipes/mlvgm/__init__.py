"""The experiments of the MLVGM paper, for recipes/mlvgm.py."""
