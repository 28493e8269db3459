"""The experiments of the MLVGM paper."""
