"""StyleGAN2 and its encoders."""
