"""The experiments of the variational smoothing paper."""
