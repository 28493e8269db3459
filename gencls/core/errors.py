"""The one error class of the package."""


class GenclsError(ValueError):
    """Bad input at a public boundary; the message says what was expected and what came."""
