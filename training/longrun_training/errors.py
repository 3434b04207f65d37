"""What ends a command early: a problem that a person is meant to read about, a server that is away, or a signal."""


class ProblemError(Exception):
    """Something a person can put right; its text is one line: what, where, and what to do. Exit status 4."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class OutageError(ProblemError):
    """The server can't be reached, or does not answer in time; nothing is wrong with the call. Exit status 3."""


class StoppedError(BaseException):
    """The person, or CI, wants the program to end. Like KeyboardInterrupt it is no Exception, so that nobody handles it by accident.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
