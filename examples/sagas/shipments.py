"""An order is shipped in parts: what is there goes out, what is not is paid back, and the customer is told of both."""

from dataclasses import dataclass

from towpath.saga import NO_EFFECT, Participant, Saga, Undo, UndoEach, hours, minutes, one_of, seconds, tolerated

warehouse, cards, post = map(Participant, ("warehouse", "cards", "post"))


@dataclass(frozen=True, slots=True)
class PartsOrdered:
    order: str = "o-1"
    lines: tuple[str, ...] = ("desk", "chair", "lamp")


@dataclass(frozen=True, slots=True)
class AuthoriseParts:
    order: str
    lines: int


@dataclass(frozen=True, slots=True)
class PartsAuthorised:
    pass


@dataclass(frozen=True, slots=True)
class CardRefused:
    pass


@dataclass(frozen=True, slots=True)
class VoidParts:
    order: str


@dataclass(frozen=True, slots=True)
class PartsVoided:
    pass


@dataclass(frozen=True, slots=True)
class PickLine:
    line: str


@dataclass(frozen=True, slots=True)
class LinePicked:
    line: str = "desk"


@dataclass(frozen=True, slots=True)
class LineMissing:
    line: str = "lamp"


@dataclass(frozen=True, slots=True)
class ReturnLine:
    line: str


@dataclass(frozen=True, slots=True)
class LineReturned:
    pass


@dataclass(frozen=True, slots=True)
class AnyLineThere:
    order: str
    picked: int


@dataclass(frozen=True, slots=True)
class SomethingThere:
    pass


@dataclass(frozen=True, slots=True)
class NothingThere:
    pass


@dataclass(frozen=True, slots=True)
class CaptureParts:
    order: str
    picked: int


@dataclass(frozen=True, slots=True)
class PartsCaptured:
    pass


@dataclass(frozen=True, slots=True)
class ShipLine:
    line: str


@dataclass(frozen=True, slots=True)
class LineShipped:
    pass


@dataclass(frozen=True, slots=True)
class RefundMissing:
    order: str
    missing: int


@dataclass(frozen=True, slots=True)
class MissingRefunded:
    pass


@dataclass(frozen=True, slots=True)
class PartsShipped:
    order: str
    shipped: int
    missing: int


Lines = tuple[LinePicked | LineMissing, ...]


def count(lines: Lines, kind: type) -> int:
    return sum(isinstance(line, kind) for line in lines)


def authorise_parts(parts: PartsOrdered) -> AuthoriseParts:
    return AuthoriseParts(parts.order, len(parts.lines))


def void_parts(parts: PartsOrdered) -> VoidParts:
    return VoidParts(parts.order)


def all_lines(parts: PartsOrdered) -> tuple[str, ...]:
    return parts.lines


def pick_line(parts: PartsOrdered, line: str) -> PickLine:
    return PickLine(line)


def return_line(parts: PartsOrdered, line: str) -> ReturnLine:
    return ReturnLine(line)


def any_line_there(parts: PartsOrdered, lines: Lines) -> AnyLineThere:
    return AnyLineThere(parts.order, count(lines, LinePicked))


def capture_parts(parts: PartsOrdered, lines: Lines) -> CaptureParts:
    return CaptureParts(parts.order, count(lines, LinePicked))


def picked_lines(parts: PartsOrdered, lines: Lines) -> tuple[str, ...]:
    return tuple(line.line for line in lines if isinstance(line, LinePicked))


def ship_line(parts: PartsOrdered, lines: Lines, line: str) -> ShipLine:
    return ShipLine(line)


def some_are_missing(parts: PartsOrdered, lines: Lines) -> bool:
    return count(lines, LineMissing) > 0


def refund_missing(parts: PartsOrdered, lines: Lines) -> RefundMissing:
    return RefundMissing(parts.order, count(lines, LineMissing))


def parts_shipped(parts: PartsOrdered, lines: Lines) -> PartsShipped:
    return PartsShipped(parts.order, count(lines, LinePicked), count(lines, LineMissing))


saga = Saga("ship_parts", version=1, starts_on=PartsOrdered, deadline=hours(72))
authorised = saga.step(
    cards,
    authorise_parts,
    undo=Undo(void_parts, succeeds=PartsVoided),
    succeeds=PartsAuthorised,
    fails=CardRefused,
    within=minutes(1),
)
picked = saga.each(
    warehouse,
    pick_line,
    over=all_lines,
    limit=20,
    after=authorised,
    undo=UndoEach(return_line, succeeds=LineReturned),
    succeeds=one_of(LinePicked, tolerated(LineMissing)),
    within=minutes(5),
)
something = saga.step(
    warehouse,
    any_line_there,
    needs=picked,
    undo=NO_EFFECT,
    succeeds=SomethingThere,
    fails=NothingThere,
    within=seconds(30),
)
captured = saga.pivot(cards, capture_parts, needs=picked, after=something, succeeds=PartsCaptured, within=minutes(1))
shipped = saga.retriable_each(
    post, ship_line, needs=picked, over=picked_lines, limit=20, after=captured, succeeds=LineShipped, within=hours(1)
)
refunded = saga.retriable(
    cards,
    refund_missing,
    needs=picked,
    when=some_are_missing,
    after=captured,
    succeeds=MissingRefunded,
    within=minutes(1),
)
saga.result(parts_shipped, event=PartsShipped, needs=picked)
