"""What ends a run early: a problem that a person is meant to read about, or a signal."""


class ProblemError(Exception):
    """Something a person can put right; its text is one line: what, where, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class StoppedError(BaseException):
    """The person, or CI, wants the program to end. Like KeyboardInterrupt it is no Exception, so that nobody handles it by accident.

    Attributes:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
