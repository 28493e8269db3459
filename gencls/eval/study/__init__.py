"""Studies: grids of cells in a folder that survives anything, and grows."""
