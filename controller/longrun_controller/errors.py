"""The one exception that a person is meant to read."""


class ProblemError(Exception):
    """Something a person can put right; its text is one line: what, where, and what to do."""
