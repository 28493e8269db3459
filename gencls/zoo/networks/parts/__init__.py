"""Parts that networks of several families share."""
