"""What the world owes and is owed, kept from commands and replies alone, without asking the machine how steps stand.

One `Account` for each command step (and item of an `each`) in a frozen ledger beside the machine's state. The machine's
own words for the same (its StepStatus) are what is on trial, so nothing here reads them.
"""

from enum import IntEnum
from typing import TypeAlias

from towpath.saga.definition import Definition, StepDefinition
from towpath.saga.inputs import Action, Input, OperatorAsked, Replied
from towpath.saga.state import Direction


class Account(IntEnum):
    """How one command stands with the world."""

    NEVER = 0  # was never sent
    SENT = 1  # may have happened
    DONE = 2
    NOT_DONE = 3  # a business failure: by contract it left no effect
    UNDO_SENT = 4  # its undo may have happened, or not
    UNDO_REFUSED = 5  # the participant says that it cannot be undone
    UNDONE = 6
    SETTLED = 7  # a person says that it is undone


Entry: TypeAlias = Account | tuple[Account, ...]
Ledger: TypeAlias = tuple[Entry, ...]

OWED = (Account.SENT, Account.DONE, Account.UNDO_SENT, Account.UNDO_REFUSED)


def opening(definition: Definition, *, refused: bool = False) -> Ledger:
    """Return the ledger before anything: the start event's own effect is there.

    Of a start that is refused it is not, where the definition says so: it stands for what the first start did.
    """
    undo = definition.steps[0].undo
    untold = refused and (undo is None or not undo.when_refused)
    return (Account.NOT_DONE if untold else Account.DONE, *(Account.NEVER for _ in definition.steps[1:]))


def owes(entry: Entry) -> bool:
    """Say whether something of the step exists, or may, that has not been undone."""
    return any(account in OWED for account in entry) if isinstance(entry, tuple) else entry in OWED


def account_of(entry: Entry, item: str) -> Account:
    """Return one account: the step's own, or that of an item."""
    if isinstance(entry, tuple):
        return entry[int(item)] if item else max(entry, default=Account.NEVER)
    return entry


def with_account(entry: Entry, item: str, account: Account, items: int) -> Entry:
    """Return the entry with one account replaced; the first item of an `each` opens accounts for all."""
    if not item:
        return account
    accounts = list(entry) if isinstance(entry, tuple) else [Account.NEVER] * items
    accounts[int(item)] = account
    return tuple(accounts)


def heard(definition: Definition, input_: Input, account: Account) -> Account:
    """Return the account of a step after an answer about it was taken: a reply, or a person's word."""
    if isinstance(input_, Replied):
        step = definition.step(input_.step)
        if input_.direction is Direction.DO:
            return Account.DONE if _does(step, input_.reply) else Account.NOT_DONE
        outcomes = step.undo.outcomes if step.undo is not None else {}
        return Account.UNDONE if outcomes.get(type(input_.reply)) else Account.UNDO_REFUSED
    if isinstance(input_, OperatorAsked) and input_.action is Action.SKIP:
        if account in (Account.UNDO_SENT, Account.UNDO_REFUSED):
            return Account.SETTLED
        step = definition.step(input_.step)
        if account is Account.SENT:
            return Account.DONE if _does(step, input_.reply) else Account.NOT_DONE
    return account


def _does(step: StepDefinition, reply: object) -> bool:
    """Say whether a reply means that something was done; a failure that is tolerated is one, too."""
    return bool(step.outcomes.get(type(reply))) and type(reply) not in step.tolerated
