"""What ends a command, one class per exit code. Any other exception is a bug (exit code 1)."""


class UsageError(Exception):
    """Wrong use: exit code 2 and one line, which says what was given and what is allowed."""

    exit_code = 2


class MissingData(UsageError):
    """The dataset is not on this machine."""


class GuardError(Exception):
    """A training guard stopped the run, for example a loss that is not finite: exit code 3."""

    exit_code = 3

    def __init__(self, message: str, good_until: int | None = None):
        """`good_until` is the last step at which all was well; None if all that was saved is good."""
        super().__init__(message)
        self.good_until = good_until


class Interrupted(BaseException):
    """The run was interrupted and has saved its state: exit code 75. The same command continues it.

    It is no Exception, as KeyboardInterrupt is none: a signal may raise it anywhere, also in a reader that takes every
    Exception for damage.
    """

    exit_code = 75

    def __init__(self, message: str, together: bool = True):
        """`together` says whether all processes of the run end at the same point; if not, this one did not wait."""
        super().__init__(message)
        self.together = together
