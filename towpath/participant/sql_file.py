"""What a file of SQL may not hold that is applied in one transaction. Pure.

The one rule: it is refused before anything of it runs. A COMMIT within would keep the first half of a file whose second
half fails, and end the lock under which two that apply it take turns; at a zero byte libpq ends, and says nothing.
"""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator

from towpath.errors import ConfigurationError

_PART = re.compile(
    r"--[^\r\n]*|(?P<comment>/\*)"
    r"|[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\""
    r"|(?P<dollar>\$(?:[^\W\d]\w*)?\$)"
    r"|(?P<word>[^\W\d][\w$]*)|(?P<end>;)"
    r"|(?P<psql>^\\(?:un)?restrict [^\r\n]*)",  # commands to psql that pg_dump writes around everything else
    re.DOTALL | re.MULTILINE,
)
_NESTED = re.compile(r"/\*|\*/")
_WORDS_MAX = 3
_OPTIONAL = ("WORK", "TRANSACTION")


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
    for position, words in _statements(text):
        if _is_of_transactions(words):
            line = text[:position].count("\n") + 1
            raise _refused(
                name,
                line,
                f"the whole file is applied in one transaction, and {words[0]} begins or ends one",
                "take it out; what is to be committed by itself goes into a file of its own",
            )
    for found in reversed([found for found in _parts(text) if found["psql"]]):
        text = text[: found.start()] + text[found.end() :]
    return text.encode()


def _refused(name: str, line: int, cause: str, next_step: str) -> ConfigurationError:
    return ConfigurationError(f"{name}:{line}: {cause}", kept="the database as it was", next_step=next_step)


def _is_of_transactions(words: list[str]) -> bool:
    first, more = words[0], [word for word in words[1:] if word not in _OPTIONAL]
    if first in ("START", "PREPARE"):
        return words[1:2] == ["TRANSACTION"]
    if first == "ROLLBACK":
        return more[:1] != ["TO"]
    return first in ("BEGIN", "COMMIT", "END", "ABORT")


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield where each statement begins, and its first words in capitals."""
    words: list[str] = []
    begins, last, in_body = 0, "", False
    for found in _parts(text):
        if found["psql"]:
            continue
        position, word = found.start(), found[0].upper()
        if word == ";":
            if words and not in_body:
                yield begins, words
            words = []
            continue
        begins = begins if words else position
        if (last, word) == ("BEGIN", "ATOMIC") and len(words) > 1:
            in_body, words = True, []  # the body of a function: its statements, each with its semicolon, up to END
        elif in_body and not words and word == "END":
            in_body, words = False, ["CREATE"]
        elif len(words) < _WORDS_MAX:
            words.append(word)
        last = word
    if words and not in_body:
        yield begins, words


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
