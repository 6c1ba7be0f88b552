"""Each SQLSTATE of PostgreSQL has its blame."""

import psycopg
import pytest
from psycopg.errors import _sqlcodes  # psycopg's own table, made from PostgreSQL's

from towpath.stream.engine.failures import Blame
from towpath.stream.engine.sqlstate import CLASSES, CODES, blame_of

ERRORS = sorted(code for code in _sqlcodes if len(code) == 5 and code.isalnum() and code.upper() == code)


def test_every_class_that_postgresql_knows_is_in_the_table() -> None:
    """A class that PostgreSQL adds is noticed with the psycopg that knows it, and not in production."""
    assert len(ERRORS) > 200
    assert {code[:2] for code in ERRORS} <= CLASSES.keys()
    assert set(CODES) <= set(ERRORS)


@pytest.mark.parametrize("code", sorted(CODES))
def test_an_exception_differs_from_its_class(code: str) -> None:
    """Else it would not be one."""
    assert CODES[code] is not CLASSES[code[:2]]


@pytest.mark.parametrize(
    ("code", "who"),
    [
        ("54000", Blame.HANDLER),  # an index row too large
        ("57014", Blame.HANDLER),  # a statement that always takes too long
        ("23503", Blame.HANDLER),
        ("22021", Blame.HANDLER),
        ("42P01", Blame.HANDLER),
        ("40P01", Blame.WORLD),
        ("57P01", Blame.WORLD),
        ("53100", Blame.WORLD),
        ("55P03", Blame.WORLD),
        ("08006", Blame.WORLD),
        ("25006", Blame.HANDLER),  # of a transaction that has written before: what is read-only is known sooner
        ("55006", Blame.HANDLER),  # its own pending triggers
        ("ZZ999", Blame.HANDLER),  # an extension's own
    ],
)
def test_who_waits_and_who_is_dead(code: str, who: Blame) -> None:
    """What goes well later waits; what would fail again is the record's."""
    assert blame_of(code) is who


def test_psycopgs_own_classes_are_not_asked() -> None:
    """It files an index row too large, and a statement's time-out, under OperationalError: not the world's faults."""
    for code in ("54000", "57014"):
        assert issubclass(psycopg.errors.lookup(code), psycopg.OperationalError)
        assert blame_of(code) is Blame.HANDLER
