"""What a file of SQL may hold: everything but what begins or ends a transaction, and what PostgreSQL would not read."""

import pytest

from towpath.errors import ConfigurationError
from towpath.participant.sql_file import statements

REFUSED = {
    "BEGIN;\nSELECT 1;\nCOMMIT;": (1, "BEGIN"),
    "SELECT 1;\nCommit": (2, "COMMIT"),
    "SELECT 1;\n\n/* so */ end transaction;": (3, "END"),
    "start transaction isolation level serializable;": (1, "START"),
    "SELECT ';' ;ROLLBACK": (1, "ROLLBACK"),
    "ROLLBACK WORK;": (1, "ROLLBACK"),
    "ABORT;": (1, "ABORT"),
    "PREPARE TRANSACTION 'x';": (1, "PREPARE"),
    "SELECT E'it\\'s';\nCOMMIT;": (2, "COMMIT"),
    "SELECT 'a\\';\nCOMMIT; --'": (2, "COMMIT"),
    "SELECT 1; -- a carriage return ends this\rCOMMIT;": (1, "COMMIT"),
    "SELECT $a$ $b$ $a$;\nCOMMIT;": (2, "COMMIT"),
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END;\nCOMMIT;": (2, "COMMIT"),
}
TAKEN = [
    "",
    "-- nothing; COMMIT;\n",
    "/* a /* nested; */ COMMIT; */ SELECT 1",
    "SELECT 'it''s; COMMIT; '; SELECT \"COMMIT; \" FROM t",
    "DO $body$ BEGIN PERFORM 1; COMMIT; END $body$;",
    "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$\nBEGIN\n  RETURN 1;\nEND\n$$;",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END;\nSELECT 1;",
    "SAVEPOINT s; ROLLBACK TO s; ROLLBACK WORK TO SAVEPOINT s; RELEASE s;",
    "PREPARE p AS SELECT 1; COMMENT ON TABLE t IS 'COMMIT;'; SELECT commit FROM starts",
    "SELECT $$ never closed; COMMIT;",
]


@pytest.mark.parametrize(("sql", "told"), REFUSED.items())
def test_what_begins_or_ends_a_transaction_is_refused(sql: str, told: tuple[int, str]) -> None:
    """With its line, before any of it runs."""
    with pytest.raises(ConfigurationError, match=f"{told[1]} begins or ends one") as raised:
        statements(sql.encode(), "0001_a.sql")
    assert str(raised.value).startswith(f"0001_a.sql:{told[0]}: ")
    assert raised.value.kept == "the database as it was"


@pytest.mark.parametrize("sql", TAKEN)
def test_such_a_word_elsewhere_is_none(sql: str) -> None:
    """In a string, a name in quotes, a comment, a function's body, or a statement that begins otherwise."""
    assert statements(sql.encode(), "0001_a.sql") == sql.encode()


@pytest.mark.parametrize(("sql", "cause"), [(b"\n\0", "zero byte"), (b"\n\xe9", "no UTF-8"), (b"\n\xff\xfe", "UTF-8")])
def test_what_postgresql_would_not_read_is_refused(sql: bytes, cause: str) -> None:
    """A file with a zero byte would be half applied; one of another encoding could not be shown."""
    with pytest.raises(ConfigurationError, match=cause.replace("no ", "not ")) as raised:
        statements(sql, "0001_a.sql")
    assert str(raised.value).startswith("0001_a.sql:2: ")


def test_what_pg_dump_says_to_psql_is_passed_over() -> None:
    """Its lines stay, so that an error names the right one."""
    assert statements(b"\\restrict a1B\nSELECT 1;\n\\unrestrict a1B\n", "0001_a.sql") == b"\nSELECT 1;\n\n"


@pytest.mark.parametrize("quotes", ["'{}'", "E'{}'", "$$ {} $$", "/* {} */", '"{}"'])
def test_such_a_line_elsewhere_is_text(quotes: str) -> None:
    """A help text that a service stores, say."""
    sql = b"\\restrict a1B\nSELECT " + quotes.format("\n\\restrict the access\n").encode() + b";\n"
    assert statements(sql, "0001_a.sql") == sql.removeprefix(b"\\restrict a1B")


def test_a_byte_order_mark_is_not_sent_to_postgresql() -> None:
    """Editors on Windows write one; psql leaves it out too. Anywhere else it is the file's own."""
    assert statements("\ufeffSELECT 1".encode(), "f.sql") == b"SELECT 1"
    assert statements("SELECT '\ufeff'".encode(), "f.sql") == "SELECT '\ufeff'".encode()
