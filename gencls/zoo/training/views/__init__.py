"""Changes to the images of a training batch."""
