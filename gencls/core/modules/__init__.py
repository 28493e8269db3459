"""Other people's modules: what they hold, what they declare, and in which mode their parts are."""
