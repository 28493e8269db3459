"""The networks of the purification methods that the MLVGM paper compares with."""
