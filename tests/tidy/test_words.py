"""Plain words: what a colleague would not say is not written, in the engine, its messages and its pages."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUAINT = {
    r"mend(s|ed|ing)?": "fix",
    r"turn(s|ed|ing)? round": "start compensating",
    r"errands?": "request",
    r"patien(ce|tly)": "how long a call may take",
    r"pace": "rate",
    r"desk": "context",
    r"scribe": "message builder",
    r"waiting for the world": "waiting for a dependency",
    r'"""Let go\.': "close",
    r"ripe": "next ready",
}
"""Pattern -> what to say instead. Short on purpose: a word comes in here once it has puzzled somebody."""


def test_no_quaint_words() -> None:
    """Each is named with its line, and with the plain word."""
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("towpath/**/*.py"),
        *ROOT.glob("towpath/**/*.sql"),
    ]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match.group(0)!r}: say {plain!r}"
        for path in pages
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for word, plain in QUAINT.items()
        if (match := re.search(word if word.startswith('"') else rf"\b{word}\b", line, re.IGNORECASE))
    ]
    assert not found, "\n".join(found)
