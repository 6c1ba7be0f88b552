"""Holds a service to the participant's contract, in one line:

    test_payment = suite(service, cases=[Case(AuthorisePayment(...)), ...])

A saga is proved under the assumption that its participants keep this contract (`towpath saga check --explain` prints
it). The kit makes the world of a participant from the service's declarations: commands come twice, undos before what
they undo, and the worker dies between any two statements. What must hold is in `CHECKS`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any

from towpath.contract.record import Record
from towpath.errors import ProgrammerError
from towpath.participant.service import Handling, Service
from towpath.saga.testing.differences import differences
from towpath.testing.asking import Asking
from towpath.testing.postgres import Fuse, Killed, Snapshot, snapshot, transaction_id
from towpath.testing.service import Left, ServiceAlone

LATER = timedelta(days=1)
DIFFERENCES_MAX = 12


@dataclass(frozen=True)
class Case:
    """One situation in which a service is asked something.

    `after` are commands that are carried out before. `undo` is the command that undoes it: by default it is made, where
    all its fields are among those of `command`. `replies` is the class of the reply that is expected, where the case is
    about one.
    """

    command: Record
    after: tuple[Record, ...] = ()
    undo: Record | None = None
    replies: type[Record] | None = None
    name: str = ""


@dataclass(frozen=True)
class Kit:
    """A service's declarations, and what its author says about them; `alone` is the service with its database."""

    service: Service
    cases: tuple[Case, ...]
    prepare: Callable[[Any], object] | None
    restores: tuple[str, ...]
    ignore: tuple[str, ...]
    unshown: frozenset[type[Record]]
    alone: ServiceAlone

    def fresh(self, *cases: Case) -> ServiceAlone:
        """Return the service in the state in which `cases` begin."""
        alone = self.alone.reset()
        if self.prepare is not None:
            alone.given(self.prepare)
        for case in cases:
            for command in case.after:
                alone.when(command)
        return alone

    def handling(self, case: Case) -> Handling:
        """Return how the service answers the command of a case."""
        return self.service.handlings[type(case.command)]

    def state(self, alone: ServiceAlone) -> Any:
        """Return what an undo must restore: the rows of the queries that the author named, else all tables."""
        if not self.restores:
            return self.tables(alone)
        return {query: alone.rows(query) for query in self.restores}

    def tables(self, alone: ServiceAlone) -> Snapshot:
        """Return what all the service's own tables hold."""
        return alone.snapshot(self.ignore)

    def undo(self, alone: ServiceAlone, case: Case) -> Asking:
        """Return the undo of a case."""
        command = case.undo or undo_of(self.service, case.command)
        assert command is not None
        return alone.asking(command)


# --- what must hold ---------------------------------------------------------------------------------------------------


def answered(kit: Kit, case: Case) -> None:
    """The reply is one that is declared, it is recorded exactly, and the handler left the transaction to its worker."""
    alone = kit.fresh(case)
    asking = alone.asking(case.command)
    before = transaction_id(alone.connection)
    try:
        alone.answer([asking])
        after = transaction_id(alone.connection)
        alone.commit()
    finally:
        alone.connection.rollback()
    assert before == after, f"the handler of {_name(case)} commits or rolls back: that is its worker's to do"
    recorded = alone.connection.execute(
        "SELECT type, payload FROM public.inbox WHERE idempotency_key = %s", (asking.idempotency_key,)
    ).fetchall()
    alone.connection.commit()
    assert recorded, f"no reply to {_name(case)} is recorded"
    reply = _reply(alone)
    assert recorded[0][1] == reply.payload, f"the reply that left is not the one that is recorded for {_name(case)}"
    if case.replies is not None:
        said = f"{_name(case)} is answered by {reply.record!r}"
        assert type(reply.record) is case.replies, f"{said}, not by a {case.replies.__name__}"


def redelivered(kit: Kit, case: Case) -> None:
    """However often it comes, it has one effect, leaves its events once, and is answered by the same reply."""
    alone = kit.fresh(case)
    asking = alone.asking(case.command)
    alone.when(asking)
    first, tables = _reply(alone), kit.tables(alone)
    for askings in ((asking,), (asking.again(),), (asking, asking.again())):
        alone.pass_time(LATER)
        alone.when(*askings)
        _require_same(f"{_name(case)}, delivered again, has a second effect", tables, kit.tables(alone))
        assert not alone.events, f"{_name(case)}, delivered again, leaves events again: {alone.events}"
        for left in alone.left:
            again = (
                f"{_name(case)}, delivered again, is answered otherwise: first {first.record!r}, then {left.record!r}"
            )
            assert left.payload == first.payload, again


def crashed(kit: Kit, case: Case) -> None:
    """Killed before any of its statements, or before the commit, and delivered again, it has its effect once."""
    # Undisturbed first: what a process remembers of a run that was rolled back must not pass for the rule.
    alone = kit.fresh(case)
    asking = alone.asking(case.command)
    alone.when(asking)
    wanted, reply = kit.tables(alone), _reply(alone).record.SCHEMA_NAME
    fuse = _die(kit.fresh(case), asking, None)
    for statements in range(fuse.executed + 1):
        if statements and kit.service.opens is not None:
            kit.fresh(case)  # what is outside the database does not come back with a rollback
        _die(alone, asking, statements)
        found, tables = _tried(kit, alone, asking)
        where = f"{_name(case)}, killed after {statements} of {fuse.executed} statements and delivered again,"
        assert found == reply, f"{where} is answered by {found}; undisturbed, by {reply}"
        _require_same(f"{where} does not have its effect once", wanted, tables)


def refused_without_trace(kit: Kit, case: Case) -> None:
    """A business failure means that nothing was done: no row is written, no event leaves."""
    alone = kit.fresh(case)
    tables = kit.tables(alone)
    alone.when(case.command)
    if type(_reply(alone).record) in kit.handling(case).fails:
        _require_same(f"{_name(case)} is refused, and leaves a trace", tables, kit.tables(alone))
        assert not alone.events, f"{_name(case)} is refused, and leaves events: {alone.events}"


def undone(kit: Kit, case: Case) -> None:
    """An undo restores what was there before, once; and what it undid, coming again, does nothing."""
    alone = kit.fresh(case)
    before = kit.state(alone)
    asking, undo = alone.asking(case.command), kit.undo(alone, case)
    alone.when(asking)
    alone.when(undo)
    _require_same(f"{_name(case)} and its undo do not restore what was there", before, kit.state(alone))
    tables = kit.tables(alone)
    alone.when(undo.again())
    _require_same(f"the undo of {_name(case)}, delivered again, has a second effect", tables, kit.tables(alone))
    _require_passed_over(kit, alone, asking, tables, f"{_name(case)}, delivered again after its undo,")


def undone_first(kit: Kit, case: Case) -> None:
    """An undo without what it undoes does no harm; and what it undoes, coming late, does nothing."""
    alone = kit.fresh(case)
    before = kit.state(alone)
    asking, undo = alone.asking(case.command), kit.undo(alone, case)
    try:
        alone.when(undo)
    except Exception as error:
        raise AssertionError(f"the undo of {_name(case)}, which never came, fails: {error!r}") from error
    _require_same(f"the undo of {_name(case)}, which never came, has an effect", before, kit.state(alone))
    _require_passed_over(kit, alone, asking, kit.tables(alone), f"{_name(case)}, which comes after its undo,")


def undone_together(kit: Kit, case: Case) -> None:
    """In one batch, in either order, a command and its undo end as they do one after the other."""
    for first in (True, False):
        alone = kit.fresh(case)
        asking, undo = alone.asking(case.command), kit.undo(alone, case)
        order = (asking, undo) if first else (undo, asking)
        for one in order:
            alone.when(one)
        apart = kit.tables(alone)
        alone = kit.fresh(case)
        alone.when(*order)
        which = "before" if first else "after"
        _require_same(f"{_name(case)}, {which} its undo in one batch, ends otherwise", apart, kit.tables(alone))


def asked_together(kit: Kit, case: Case) -> None:
    """Commands of one batch are answered, and have the effects, that they have one after the other."""
    cases = [each for each in kit.cases if type(each.command) is type(case.command)]
    alone = kit.fresh(*cases)
    askings = [replace(alone.asking(each.command), item=str(number)) for number, each in enumerate(cases)]
    apart: list[bytes] = []
    for asking in askings:
        alone.when(asking)
        apart += [left.payload for left in alone.left if left.is_reply]
    tables = kit.tables(alone)
    alone = kit.fresh(*cases)
    alone.when(*askings)
    together = [left.payload for left in alone.left if left.is_reply]
    what = f"{len(cases)} {type(case.command).__name__} in one batch"
    for number, (one, other) in enumerate(zip(apart, together, strict=True), start=1):
        said = alone.parts.codec.decode(other)
        assert one == other, (
            f"{what}: number {number} is answered by {said!r}, alone by {alone.parts.codec.decode(one)!r}"
        )
    _require_same(f"{what} have another effect than one after the other", tables, kit.tables(alone))


def every_reply_is_shown(kit: Kit) -> None:
    """Each reply that the service declares is the answer to some case: what no case shows was not held to anything."""
    shown: set[type[Record]] = set(kit.unshown)
    for case in kit.cases:
        alone = kit.fresh(case)
        alone.when(case.command)
        shown.update(type(reply) for reply in alone.replies)
        if has_undo(kit.service, case.command):
            alone.when(kit.undo(alone, case))
            shown.update(type(reply) for reply in alone.replies)
    missing = [
        f"{handling.command.__name__} -> {reply.__name__}"
        for handling in kit.service.handlings.values()
        for reply in sorted((*handling.succeeds, *handling.fails), key=lambda each: each.__name__)
        if reply not in shown
    ]
    assert not missing, f"no case shows {', '.join(missing)}: add one, or name the reply in unshown="


Check = Callable[[Kit, Case], None]
CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        answered,
        redelivered,
        crashed,
        refused_without_trace,
        undone,
        undone_first,
        undone_together,
        asked_together,
    )
}
_OF_UNDOS = frozenset({"undone", "undone_first", "undone_together"})


# --- the suite --------------------------------------------------------------------------------------------------------


def suite(
    service: Service,
    *,
    cases: Iterable[Case] = (),
    prepare: Callable[[Any], object] | None = None,
    restores: Iterable[str] = (),
    ignore: Iterable[str] = (),
    unshown: Iterable[type[Record]] = (),
) -> Callable[..., None]:
    """Return a test for pytest, parametrised by everything that must hold of `service` in each of `cases`.

    Without cases, the good examples of its commands in `schemas/examples` are asked. `prepare` is called with a
    connection, for the rows that are there before. `restores` are queries whose rows an undo must bring back: what a
    service keeps as a record of what it did (a row marked as released, say) may stay; by default everything must be as
    before. `ignore` names tables and columns (`audit`, `audit.written_at`) that may differ between two runs. `unshown`
    are declared replies that no case need show. The test needs the fixture `towpath_service` of the pytest plugin, and
    so a PostgreSQL server. Raises ProgrammerError for a case that the service does not answer, and for an undo that
    cannot be made.
    """
    import pytest

    given = tuple(cases) or tuple(_from_examples(service))
    for case in given:
        _require_answerable(service, case)
    parameters = [
        pytest.param(check, case, id=f"{_name(case)}-{number}-{check.__name__}")
        for number, case in enumerate(given, start=1)
        for check in _checks_of(service, case, given)
    ]
    whole = pytest.param(lambda kit, _: every_reply_is_shown(kit), None, id="every_reply_is_shown")

    @pytest.mark.parametrize(("check", "case"), [*parameters, whole])
    def test(towpath_service: Callable[[Service], ServiceAlone], check: Check, case: Case) -> None:
        alone = towpath_service(service)
        kit = Kit(service, given, prepare, tuple(restores), tuple(ignore), frozenset(unshown), alone)
        check(kit, case)

    test.__doc__ = f"The service {service.name} keeps the contract of a participant."
    return test


def _checks_of(service: Service, case: Case, cases: Sequence[Case]) -> Iterator[Check]:
    alike = [each for each in cases if type(each.command) is type(case.command)]
    for name, check in CHECKS.items():
        if name in _OF_UNDOS and not has_undo(service, case.command):
            continue
        if name == "asked_together" and (len(alike) == 1 or case is not alike[0]):
            continue
        if name == "refused_without_trace" and not service.handlings[type(case.command)].fails:
            continue
        yield check


def has_undo(service: Service, command: Record) -> bool:
    """Return whether the service undoes commands of that class."""
    return _undo_class(service, command) is not None


def _undo_class(service: Service, command: Record) -> type[Record] | None:
    return next((each.command for each in service.handlings.values() if each.of is type(command)), None)


def undo_of(service: Service, command: Record) -> Record | None:
    """Return the undo of a command, made of the command's own fields; None where they do not suffice."""
    kind = _undo_class(service, command)
    if kind is None:
        return None
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if not all(hasattr(command, name) for name in names):
        return None
    return kind(**{name: getattr(command, name) for name in names})


def _require_answerable(service: Service, case: Case) -> None:
    command = type(case.command).__name__
    handling = service.handlings.get(type(case.command))
    if handling is None or handling.of is not None:
        problem = "has no handler for" if handling is None else "undoes something with"
        raise ProgrammerError(
            f"service {service.name} {problem} {command}: that is no case",
            next_step="ask a command that it does; undos are asked by the kit",
        )
    if has_undo(service, case.command) and case.undo is None and undo_of(service, case.command) is None:
        kind = _undo_class(service, case.command)
        raise ProgrammerError(
            f"the undo of {command} cannot be made of it: {kind.__name__ if kind else ''} has further fields",
            next_step=f"give it: Case({command}(...), undo=...)",
        )


def _from_examples(service: Service) -> Iterator[Case]:
    from towpath.settings import load_settings
    from towpath.testing.parts import ProjectParts

    parts = ProjectParts.load(load_settings())
    for handling in service.handlings.values():
        if handling.of is None:
            yield from (Case(example) for example in parts.examples(handling.command))


# --- how --------------------------------------------------------------------------------------------------------------


def _die(alone: ServiceAlone, asking: Asking, statements: int | None) -> Fuse:
    """Answer, and die after so many statements, or before the commit; return the fuse that counted them."""
    fuse = alone.connection.fuse = Fuse(statements)
    try:
        with suppress(Killed):
            alone.answer([asking])
    finally:
        alone.connection.fuse = None
        alone.connection.rollback()
    return fuse


def _tried(kit: Kit, alone: ServiceAlone, asking: Asking) -> tuple[str, Snapshot]:
    """Answer, and roll back: return the reply's type and the tables as they would have been committed."""
    try:
        alone.answer([asking])
        tables = snapshot(alone.connection, kit.ignore)
        recorded = alone.connection.execute(
            "SELECT type FROM public.inbox WHERE idempotency_key = %s", (asking.idempotency_key,)
        ).fetchall()
    finally:
        alone.connection.rollback()
    return str(recorded[0][0]) if recorded else "nothing", tables


def _reply(alone: ServiceAlone) -> Left:
    replies = [left for left in alone.left if left.is_reply]
    assert len(replies) == 1, f"one command, and {len(replies)} replies: {alone.replies}"
    return replies[0]


def _require_passed_over(kit: Kit, alone: ServiceAlone, asking: Asking, tables: Snapshot, what: str) -> None:
    alone.when(asking.again())
    assert not alone.left, f"{what} is answered: {[left.record for left in alone.left]}"
    _require_same(f"{what} has an effect", tables, kit.tables(alone))


def _require_same(problem: str, wanted: Any, found: Any) -> None:
    if wanted == found:
        return
    lines = [problem]
    for name in wanted:
        before, after = wanted[name], found.get(name, ())
        if before != after:
            lines.append(f"  {name}:")
            lines += [f"    - {row}" for row in before if row not in after][:DIFFERENCES_MAX]
            lines += [f"    + {row}" for row in after if row not in before][:DIFFERENCES_MAX]
            if sorted(map(str, set(before))) == sorted(map(str, set(after))):
                lines += [f"    {line}" for line in differences(list(before), list(after))][:DIFFERENCES_MAX]
    raise AssertionError("\n".join(lines))


def _name(case: Case) -> str:
    return case.name or type(case.command).__name__
