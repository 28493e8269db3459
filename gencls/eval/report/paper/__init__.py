"""Tables and figures in the form of a paper."""
