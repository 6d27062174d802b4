"""Errors that a user can do something about.

    DualmemError                  1  internal: a fault of this program
    ├── UsageError                2  the arguments do not fit
    │   └── MalformedError        2  the file given is not of the form it should have
    ├── NotFoundError             3  no such conversation, vault, section, file
    ├── LockedError               4  wrong passphrase, key missing, database does not open with this key
    ├── TamperedError             5  sealed data changed, cut short or put in another's place
    │   └── NewerFormatError      5  sealed data of a format unknown here: of a newer version, or changed
    ├── StoreUnreachableError     6  the bucket or the disk cannot be reached or written
    │   ├── StoreRefusedError     6  the bucket answers, but cannot be used (rights, conditional writes)
    │   ├── DiskFullError         6  no space left on this device
    │   └── BudgetSpentError      8  the bucket is left alone, since asking costs; an OverBudgetError, too
    ├── ConflictError             7  somebody else wrote first
    └── OverBudgetError           8  a limit set by the user is reached

The number is the exit code of the command line. A message says what went wrong and on what; `hint`
says what to do now. Neither ever holds a secret or a word of a conversation.
"""

from __future__ import annotations


class DualmemError(Exception):
    """What went wrong, in which operation, on which subject, and what to do now."""

    exit_code = 1

    def __init__(self, message: str, *, operation: str = "", subject: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.subject = subject
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(DualmemError):
    """The arguments of a command or tool do not fit."""

    exit_code = 2


class MalformedError(UsageError):
    """A file that the user gave is not of the form it should have."""


class NotFoundError(DualmemError):
    """What was asked for does not exist here."""

    exit_code = 3


class LockedError(DualmemError):
    """The key is missing or wrong; the data itself may be fine."""

    exit_code = 4


class TamperedError(DualmemError):
    """Sealed data does not authenticate: changed, cut short, or put in another's place."""

    exit_code = 5


class NewerFormatError(TamperedError):
    """Sealed data states a format that this version does not know: written by a newer one, or changed."""


class StoreUnreachableError(DualmemError):
    """A store cannot be reached now; trying again later may help."""

    exit_code = 6


class StoreRefusedError(StoreUnreachableError):
    """A store answers but cannot be used as it is set up; trying again will not help."""


class DiskFullError(StoreUnreachableError):
    """There is no space left where this device keeps its data."""


class ConflictError(DualmemError):
    """Somebody else wrote first; nothing of theirs was overwritten."""

    exit_code = 7


class OverBudgetError(DualmemError):
    """A limit that the user set would be passed."""

    exit_code = 8


class BudgetSpentError(StoreUnreachableError, OverBudgetError):
    """The user's budget for the month is spent: the bucket counts as away, and everything waits on this device."""

    exit_code = OverBudgetError.exit_code
