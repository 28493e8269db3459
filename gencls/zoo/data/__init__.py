"""Data sets: real images with labels, from files, from torchvision, and 5,000 MNIST digits that are always there."""

from gencls.zoo.data.image_data import ImageData
from gencls.zoo.data.loader import count_images, data_names, load_data, split_names

__all__ = ["ImageData", "count_images", "data_names", "load_data", "split_names"]
