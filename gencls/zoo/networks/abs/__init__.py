"""The class-conditional autoencoders of ABS and E-ABS."""
