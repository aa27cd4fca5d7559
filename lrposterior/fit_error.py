"""What a fit raises that could not be made."""


class FitError(RuntimeError):
    """A fit that failed. The text holds the cause and the remedy."""
