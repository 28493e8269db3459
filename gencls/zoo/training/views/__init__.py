"""What is done to the images of a training batch."""
