"""One encrypted memory for Claude across all of a user's devices."""

__version__ = "0.1.0"
