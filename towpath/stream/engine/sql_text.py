"""How PostgreSQL divides a text of SQL into statements, and which of them end a transaction. Pure.

The rule is that of its scanner (scan.l; "Lexical Structure" in its manual): what stands in strings, in names in quotes,
in comments, which nest, and in the body of a function is no statement.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

_STRING = r"'(?:[^']++|'')*+(?:'|\Z)"
_ESCAPED = r"'(?:[^'\\]++|\\.|'')*+(?:'|\Z)"
_NEXT_LINE = r"(?:[ \t\f\v]|--[^\r\n]*+)*+[\r\n](?:\s|--[^\r\n]*+[\r\n])*+"
_LETTER = r"[A-Za-z_\x80-\U0010ffff]"
_PART = re.compile(
    r"--[^\r\n]*+|(?P<comment>/\*)"
    rf"|[eE]{_ESCAPED}(?:{_NEXT_LINE}{_ESCAPED})*+|{_STRING}|\"(?:[^\"]++|\"\")*+(?:\"|\Z)"
    rf"|(?P<dollar>\$(?:{_LETTER}(?:{_LETTER}|[0-9])*+)?\$)"
    rf"|(?P<word>{_LETTER}(?:{_LETTER}|[0-9$])*+)|(?P<end>;)"
    r"|(?P<psql>^\\(?:un)?restrict [^\r\n]*+)",  # commands to psql that pg_dump writes around everything else
    re.DOTALL | re.MULTILINE,
)
_NESTED = re.compile(r"/\*|\*/")
_ENDING = re.compile(r"COMMIT|END|ABORT|ROLLBACK|PREPARE", re.IGNORECASE)
_WORDS_MAX = 3
_OPTIONAL = ("WORK", "TRANSACTION")


class Statement(NamedTuple):
    """A statement: the place of its first word in the text, and its first words, three at most, in capitals."""

    position: int
    words: tuple[str, ...]


def statements(text: str) -> Iterator[Statement]:
    """Yield the statements of a text in which there is a word; those in the body of a function are its own."""
    words: list[str] = []
    created = words
    begins, last, in_body = 0, "", False
    for found in _parts(text):
        if found["psql"]:
            continue
        word = found[0].upper()
        if word == ";":
            if 0 < len(words) < _WORDS_MAX and not in_body:
                yield Statement(begins, tuple(words))
            words = []
            continue
        if in_body and not words and word == "END":
            in_body, words = False, created
        elif (last, word) == ("BEGIN", "ATOMIC") and words[:1] == ["CREATE"]:
            in_body, words, created = True, [], words
        elif len(words) < _WORDS_MAX:
            begins = begins if words else found.start()
            words.append(word)
            if len(words) == _WORDS_MAX and not in_body:
                yield Statement(begins, tuple(words))
        last = word
    if 0 < len(words) < _WORDS_MAX and not in_body:
        yield Statement(begins, tuple(words))


def ends_transaction(statement: Statement) -> bool:
    """Return whether a statement commits the transaction that it stands in, or rolls it back as a whole."""
    first, *more = statement.words
    if first == "PREPARE":
        return more[:1] == ["TRANSACTION"] and more[1:] != ["AS"]
    if first == "ROLLBACK":
        return [word for word in more if word not in _OPTIONAL][:1] != ["TO"]
    return first in ("COMMIT", "END", "ABORT")


def first_end(text: str) -> str | None:
    """Return the word with which the first statement begins that ends the transaction; None where none does."""
    return _known_end(text) if len(text) <= _KNOWN_CHARACTERS_MAX else _look_for_end(text)


def _look_for_end(text: str) -> str | None:
    if _ENDING.search(text) is None:
        return None
    return next((one.words[0] for one in statements(text) if ends_transaction(one)), None)


_KNOWN_CHARACTERS_MAX = 4_096
_known_end = lru_cache(1_024)(_look_for_end)
"""A unit of work asks of each text that it sends, and they are mostly the same few."""


def psql_commands(text: str) -> list[tuple[int, int]]:
    """Return where commands to psql begin and end, which PostgreSQL itself does not take."""
    return [found.span() for found in _parts(text) if found["psql"]]


def _parts(text: str) -> Iterator[re.Match[str]]:
    """Yield the words, semicolons and commands to psql that stand in no string, name in quotes or comment."""
    position = 0
    while (found := _PART.search(text, position)) is not None:
        position = found.end()
        if found["comment"]:
            position = _after_comment(text, position)
        elif found["dollar"]:
            end = text.find(found["dollar"], position)
            position = len(text) if end < 0 else end + len(found["dollar"])
        elif found["word"] or found["end"] or found["psql"]:
            yield found


def _after_comment(text: str, position: int) -> int:
    depth = 1
    while depth and (found := _NESTED.search(text, position)) is not None:
        depth += 1 if found[0] == "/*" else -1
        position = found.end()
    return len(text) if depth else position
