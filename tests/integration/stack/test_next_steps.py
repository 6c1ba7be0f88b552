"""What a command tells a person to run next, run as printed, on a running stack."""

from uuid import uuid4

import pytest

from tests.next_steps import follow, run
from tests.stack_fixture import ROOT, RunningStack

NOBODY = str(uuid4())
ELSEWHERE = {
    "up --brokers 1": "tests/integration/stack/test_up.py",
    "up --fresh": "tests/integration/stack/test_up.py",
}
"""Would stop the stack that all tests share."""


@pytest.mark.parametrize(
    ("words", "code", "leads_to"),
    [
        (("logs", "ghost"), 5, None),
        (("run", "ghost"), 5, ("run",)),
        (("run", "service:ghost"), 5, None),
        (("capture", "status", "ghost"), 2, None),
        (("capture", "skip", "order", NOBODY, "--reason", "x"), 5, ("capture", "recover", "order", "--dry-run")),
        (("capture", "resend", "order", NOBODY), 5, ("capture", "skipped")),
        (("dead", "show", "order.events", "0:99999"), 5, ("dead", "list", "order.events")),
        (("dead", "show", "order.events", "rubbish"), 2, ("dead", "list", "order.events")),
        (("dead", "redrive", "order.events", "0:99999", "--reason", "x"), 5, ("dead", "list", "order.events")),
        (("dead", "list", "ghost.events"), 5, None),
        (("positions", "accept", "ghost", "--reason", "x"), 5, ("positions", "list")),
        (("saga", "show", "place_order", NOBODY), 5, ("saga", "list", "place_order")),
        (("saga", "why", "place_order", NOBODY), 5, ("saga", "list", "place_order")),
        (("saga", "why", "ghost", NOBODY), 5, ("saga", "list")),
        (("saga", "history", "place_order", NOBODY), 5, ("saga", "list", "place_order")),
        (("saga", "cancel", "place_order", NOBODY, "--reason", "x"), 5, ("saga", "list", "place_order")),
        (("replay", "capture", "ghost"), 5, None),
        (("up", "--brokers", "3"), 6, None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_leads_on(
    stack: RunningStack, words: tuple[str, ...], code: int, leads_to: tuple[str, ...] | None
) -> None:
    """What is named and not there is said, with a command that shows what is."""
    del stack
    first, further = follow(run, ROOT, *words, elsewhere=ELSEWHERE)
    assert first.code == code, first.text
    if leads_to is not None:
        found = {said.words: said for said in further}
        assert leads_to in found, first.text
        assert found[leads_to].code == 0, found[leads_to].text
