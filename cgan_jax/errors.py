"""What can end a command other than success, one exception per exit code. Anything else is a bug (exit code 1)."""


class UsageError(Exception):
    """The user gave something that cannot work: exit code 2 and one line. Say what was given and what is allowed."""

    exit_code = 2


class MissingData(UsageError):
    """The dataset that was asked for is not on this machine."""


class GuardError(Exception):
    """A training guard stopped the run, for example a loss that is not finite: exit code 3."""

    exit_code = 3

    def __init__(self, message: str, good_until: int | None = None):
        """Nothing was wrong up to step `good_until`; None where all that was saved is good."""
        super().__init__(message)
        self.good_until = good_until


class Interrupted(Exception):
    """The run was asked to stop and has saved its state: exit code 75, run the same command again to go on."""

    exit_code = 75

    def __init__(self, message: str, together: bool = True):
        """All processes of the run end at the same point; or, where not `together`, this one did not wait for them."""
        super().__init__(message)
        self.together = together
