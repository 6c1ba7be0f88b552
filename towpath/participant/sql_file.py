"""What a file of SQL may not hold that is applied in one transaction. Pure.

The one rule: it is refused before anything of it runs. A COMMIT within would keep the first half of a file whose second
half fails, and end the lock under which two that apply it take turns; at a zero byte libpq ends, and says nothing.
"""

from codecs import BOM_UTF8

from towpath.errors import ConfigurationError
from towpath.stream.engine.sql_text import Statement, ends_transaction, psql_commands
from towpath.stream.engine.sql_text import statements as divided


def statements(content: bytes, name: str) -> bytes:
    """Return what is sent to PostgreSQL of the file `name`, line for line as it is there.

    A byte order mark at its beginning, which editors on Windows write, is left out: to PostgreSQL it is a syntax error.
    Raises ConfigurationError for what is no UTF-8, has a zero byte, or begins or ends a transaction.
    """
    try:
        text = content.removeprefix(BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _refused(name, line, "this is not UTF-8", "save it as UTF-8") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise _refused(name, line, "PostgreSQL would read no further than the zero byte here", "take it out")
    for statement in divided(text):
        if _begins_transaction(statement) or ends_transaction(statement):
            line = text[: statement.position].count("\n") + 1
            raise _refused(
                name,
                line,
                f"the whole file is applied in one transaction, and {statement.words[0]} begins or ends one",
                "take it out; what is to be committed by itself goes into a file of its own",
            )
    for begin, end in reversed(psql_commands(text)):
        text = text[:begin] + text[end:]
    return text.encode()


def _refused(name: str, line: int, cause: str, next_step: str) -> ConfigurationError:
    return ConfigurationError(f"{name}:{line}: {cause}", kept="the database as it was", next_step=next_step)


def _begins_transaction(statement: Statement) -> bool:
    return statement.words[0] == "BEGIN" or statement.words[:2] == ("START", "TRANSACTION")
