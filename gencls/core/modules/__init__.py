"""Other people's modules: what they hold, what they declare, and which of their parts are in training mode."""
