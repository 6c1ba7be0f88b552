"""How PostgreSQL divides a text of SQL, and with what a transaction ends."""

import pytest
from psycopg import sql

from towpath.stream.engine.connection.postgres import TransactionEnded, refuse_end
from towpath.stream.engine.sql_text import first_end, statements

ENDS = {
    "COMMIT": "COMMIT",
    ";; commit and chain": "COMMIT",
    "SELECT 1; -- so\n END": "END",
    "SELECT 'begin atomic'; ABORT": "ABORT",
    "SELECT 1; -- begin atomic\nCOMMIT": "COMMIT",
    "ROLLBACK WORK; SELECT 2": "ROLLBACK",
    "PREPARE/**/TRANSACTION 'x'": "PREPARE",
    "SELECT 1 AS \u00e9$a$; COMMIT": "COMMIT",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END; COMMIT": "COMMIT",
    "SELECT E'\\\\'; COMMIT": "COMMIT",
    "SELECT E'a' -- so\n'\\''; COMMIT": "COMMIT",
    "SELECT 1 AS e\u0301$a$; COMMIT; SELECT 1 AS e\u0301$a$": "COMMIT",
    "SELECT $$ a $$, $b$ $$ $b$; END TRANSACTION": "END",
}
GOES_ON = [
    "",
    "SELECT commit FROM ends WHERE rollback = 'COMMIT'",
    "SELECT 1 AS \"; COMMIT\", 'it''s; COMMIT', E'it\\'s; COMMIT', $$; COMMIT $$, $a$ $$; COMMIT; $a$ -- ; COMMIT",
    "SELECT E'it'\n'\\'; COMMIT; -- no'",
    "SELECT E'a' -- so\n -- and so\n'\\'; COMMIT; --'",
    "SAVEPOINT a; ROLLBACK /* of a part */ TO SAVEPOINT a; rollback work -- so\n to a",
    "CREATE FUNCTION one() RETURNS int LANGUAGE sql BEGIN /* x */ ATOMIC SELECT 1; SELECT 2; END",
    'CREATE PROCEDURE "p"() BEGIN ATOMIC SELECT 1; END; SELECT 1',
    "DO $gr\u00f6\u00dfe$ BEGIN PERFORM 1; END; $gr\u00f6\u00dfe$",
    "PREPARE transaction AS SELECT 1",
    "/* ; COMMIT /* ; */ ; COMMIT */ SELECT CASE WHEN true THEN 1 END",
    "SELECT 'never closed; COMMIT",
    "/* never closed; COMMIT",
]


@pytest.mark.parametrize("text", ENDS)
def test_what_ends_a_transaction_is_seen_wherever_it_stands(text: str) -> None:
    """As text, as bytes, composed."""
    assert first_end(text) == ENDS[text]
    for form in (text, text.encode(), sql.SQL("{}{}").format(sql.SQL(""), sql.SQL(text))):
        with pytest.raises(TransactionEnded):
            refuse_end(form)


@pytest.mark.parametrize("text", GOES_ON)
def test_such_a_word_elsewhere_is_none(text: str) -> None:
    """In strings, names, comments, bodies, and statements that begin otherwise."""
    refuse_end(text)
    refuse_end(text.encode())


def test_a_statement_has_its_place_and_first_words() -> None:
    """Of long ones three words are enough to tell."""
    text = "; /* a */ SELECT a FROM b WHERE c; drop\n table d;"
    found = [(text[one.position :][:4], one.words) for one in statements(text)]
    assert found == [("SELE", ("SELECT", "A", "FROM")), ("drop", ("DROP", "TABLE", "D"))]
