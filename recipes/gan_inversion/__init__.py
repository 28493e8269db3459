"""The experiments of the thesis's chapter 3."""
