"""The errors of Towpath, cut by who must act. Each says the cause, what was kept, and what to run next.

A business outcome (out of stock, card declined) is a reply, never an exception, and so has no class here.
Messages carry names, ids and positions, never payloads.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a `towpath` command returns to the shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONTRACT_BROKEN = 3
    PARTLY_DONE = 4
    NOT_FOUND = 5
    REFUSED = 6


class TowpathError(Exception):
    """Something that a person or a peer must fix.

    `cause` is one sentence; `kept` says what is safe all the same; `next_step` is the command or change that
    fixes it. The exit code is what the command line returns when this error ends a command.
    """

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, cause: str, *, kept: str | None = None, next_step: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.kept = kept
        self.next_step = next_step

    def __str__(self) -> str:
        lines = [self.cause]
        if self.kept:
            lines.append(f"kept: {self.kept}")
        if self.next_step:
            lines.append(f"next: {self.next_step}")
        return "\n".join(lines)


class ProgrammerError(TowpathError):
    """The code or configuration of the user's project is wrong; raised as early as it can be seen."""


class ConfigurationError(ProgrammerError):
    """A setting is missing, malformed, or contradicts another one."""

    exit_code = ExitCode.USAGE


class ContractError(ProgrammerError):
    """A schema, topic, example or definition breaks a promise."""

    exit_code = ExitCode.CONTRACT_BROKEN


class PeerError(TowpathError):
    """A record that another system wrote cannot be used: it goes to the dead-letter topic."""


class WorldError(TowpathError):
    """Something outside is away or full (broker, registry, database, disk): wait and try again."""


class NotFoundError(TowpathError):
    """What was asked for does not exist."""

    exit_code = ExitCode.NOT_FOUND


class RefusedError(TowpathError):
    """Doing this would lose or repeat something."""

    exit_code = ExitCode.REFUSED


class PartlyDoneError(TowpathError):
    """Some of it was done; running the same command again does the rest."""

    exit_code = ExitCode.PARTLY_DONE


def first_line(error: BaseException) -> str:
    """Return the first line of what a library's error says, its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
