"""What `saga why` tells a person to run about a worker, run as printed."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.next_steps import run, step_in
from tests.stack_fixture import ROOT, variables
from tests.unit.orchestrator.test_why import COMMAND, READER, asked, facts, sent
from towpath.orchestrator.why import explain
from towpath.stack.findings import after_stall
from towpath.stack.home import Home


@pytest.mark.parametrize("stalled", [False, True])
def test_the_log_of_a_service_that_has_not_answered_is_shown(tmp_path: Path, stalled: bool) -> None:
    """By the name that its process has, whether it is at work or does not come back."""
    home = Home(tmp_path)
    home.make()
    home.log_file("service:payment").write_text("it stands at line 7\n", encoding="utf-8")
    reader = READER
    if stalled:
        reader = replace(READER, position=40, still="stalled: it", way_back=after_stall("service:payment"))
    lines = explain(facts(state=sent(), asked=asked(replace(COMMAND, reader=reader), recorded=False)))
    said = "\n".join(line.command or "" for line in lines)
    with variables({"TOWPATH_STACK__HOME": str(tmp_path)}):
        log = run(ROOT, *step_in(said, "logs service:x")).leads_on()
    assert (log.code, "it stands at line 7" in log.text) == (0, True), log.text
