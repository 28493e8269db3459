"""Parts of several attacks."""
