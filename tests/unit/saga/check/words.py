"""The records and builders that the sagas of these tests are made of."""

from dataclasses import dataclass

from towpath.saga import Cause, Participant

shop = Participant("shop")


@dataclass(frozen=True, slots=True)
class Begun:
    """Starts a saga. In samples every text is `sample`, every number 1, every list of length 1."""

    order_id: str
    quantity: int
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Ask:
    """Any command."""

    order_id: str


@dataclass(frozen=True, slots=True)
class Well:
    """Success, with something in it."""

    number: int


@dataclass(frozen=True, slots=True)
class AlsoWell:
    """Another success."""

    number: int


@dataclass(frozen=True, slots=True)
class Badly:
    """Business failure."""

    reason: str


@dataclass(frozen=True, slots=True)
class TakenBack:
    """Undone."""


@dataclass(frozen=True, slots=True)
class NotTakenBack:
    """Cannot be undone."""


@dataclass(frozen=True, slots=True)
class Approved:
    """A person agrees."""

    by: str


@dataclass(frozen=True, slots=True)
class Declined:
    """A person does not."""


def ask(event: Begun) -> Ask:
    """Build any command."""
    return Ask(event.order_id)


def ask_again(event: Begun) -> Ask:
    """Build any other command."""
    return Ask(event.order_id)


def ask_item(event: Begun, item: str) -> Ask:
    """Build a command about an item."""
    return Ask(event.order_id + item)


def take_back(event: Begun) -> Ask:
    """Build an undo."""
    return Ask(event.order_id)


def take_back_item(event: Begun, item: str) -> Ask:
    """Build the undo of an item."""
    return Ask(event.order_id + item)


def take_back_start(event: Begun, cause: Cause) -> Ask:
    """Undo the start, whatever the cause."""
    return Ask(f"{event.order_id}: {cause}")


def lines_of(event: Begun) -> list[str]:
    """Return the list of an `each`."""
    return event.lines


def is_large(event: Begun) -> bool:
    """Return a condition."""
    return event.quantity > 5
