"""What `towpath demo` shows of a run: outcomes, two journeys and the verdict; and that a broken verdict fails."""

from dataclasses import replace

import pytest

from tests.next_steps import run, step_in
from tests.stack_fixture import ROOT
from tests.unit.stream.support import SETTINGS as STREAM
from towpath.cli import demo, output
from towpath.contract.catalogue import Catalogue
from towpath.demo.demo import Check, Outcome
from towpath.demo.runner import Report
from towpath.demo.timeline import Hop
from towpath.demo.verdict import Verdict
from towpath.errors import ConfigurationError, ExitCode
from towpath.settings import Settings, load_settings
from towpath.stream.broker.memory import MemoryBroker

VERDICT = Verdict(
    orders=3,
    completed=1,
    compensated=2,
    lost=0,
    stuck=0,
    executed_twice=0,
    money_conserved=True,
    stock_conserved=True,
    view_exact=True,
    order_seconds_p50=0.4,
    order_seconds_p99=0.9,
    traffic_seconds=1.5,
    elapsed_seconds=9.0,
)
REPORT = Report(
    VERDICT,
    {
        "o-1": Outcome("confirmed", None),
        "o-2": Outcome("rejected", "the card was declined"),
        "o-3": Outcome("rejected", "the card was declined"),
    },
    [Check("money_conserved", True, "12 euros taken"), Check("stock_conserved", True, "3 pieces")],
    {"o-2": ("compensated", [Hop(0, "order.events", 0, 7, "OrderPlaced", "", undo=False)])},
)


@pytest.fixture
def settings() -> Settings:
    """Return the reference project's settings."""
    return load_settings()


def shown(report: Report, settings: Settings, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a person sees of a report."""
    demo._show_report(report, settings)
    return " ".join(capsys.readouterr().out.split())


def test_a_run_that_holds_is_told(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """How many ended how and why, one order's way, figures, and each claim."""
    text = shown(REPORT, settings, capsys)
    assert "2 rejected the card was declined" in text
    assert "1 confirmed" in text
    assert "One order that was compensated: o-2" in text
    assert "+0 order.events/0@7 OrderPlaced" in text
    assert "3 orders in 1.5 s, 9.0 s with start and check; from placed to ended p50 0.4 s, p99 0.9 s" in text
    assert text.count("✓") == 6
    assert "12 euros taken" in text


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        ({"lost": 1}, "no order lost"),
        ({"stuck": 1}, "no order stuck"),
        ({"executed_twice": 1}, "no command executed twice"),
        ({"money_conserved": False}, "money conserved"),
        ({"stock_conserved": False}, "stock conserved"),
        ({"view_exact": False}, "each view row equals the fold of its topic"),
    ],
)
def test_what_does_not_hold_is_marked(
    settings: Settings, capsys: pytest.CaptureFixture[str], broken: dict[str, object], claim: str
) -> None:
    """That claim alone; and where the logs lie."""
    text = shown(replace(REPORT, verdict=replace(VERDICT, **broken)), settings, capsys)  # type: ignore[arg-type]
    assert text.count("✗") == 1
    assert f"✗ {claim}" in text
    assert "The logs lie in" in text


def test_what_was_stepped_over_is_told(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many, and where they can be seen, also once they are settled."""
    assert "stepped over" not in shown(REPORT, settings, capsys)
    broker = MemoryBroker(STREAM)
    for topic in Catalogue.load(settings).topics:
        broker.create_topic(topic, 1)
    monkeypatch.setattr("towpath.stream.broker.kafka.KafkaBroker", lambda *_: broker)
    text = shown(replace(REPORT, verdict=replace(VERDICT, stepped_over=2)), settings, capsys)
    assert "2 records of the topics cannot be decoded" in text
    assert "✗" not in text
    listed = run(ROOT, *step_in(text, "dead list --all")).leads_on()
    assert listed.code == 0, listed.text


def test_more_reasons_than_fit_are_counted(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """The most frequent first, the others together."""
    outcomes = {f"o-{number}": Outcome("rejected", f"reason {number}") for number in range(9)}
    text = shown(replace(REPORT, outcomes=outcomes), settings, capsys)
    assert "... further reasons" in text
    assert text.count("rejected") == demo.REASONS_SHOWN


def test_a_broken_verdict_fails_the_command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 1, and as JSON on stdout alone."""
    lost = replace(REPORT, verdict=replace(VERDICT, lost=1))
    monkeypatch.setattr("towpath.demo.runner.conduct", lambda *_, **__: lost)
    with pytest.raises(SystemExit) as ended:
        demo.demo(orders=3, seed=1, keep=False, crash=False, as_json=True)
    assert ended.value.code == ExitCode.FAILED
    assert '"lost": 1' in capsys.readouterr().out


def test_a_project_without_a_demo_says_how_to_name_one(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its setting."""
    project = settings.project.model_copy(update={"demo": None})
    monkeypatch.setattr(demo, "load_settings", lambda: settings.model_copy(update={"project": project}))
    with pytest.raises(ConfigurationError, match="this project has no demo") as refused:
        demo.demo(orders=1, seed=1, keep=False, crash=False, as_json=False)
    assert "demo" in (refused.value.next_step or "")


def test_a_run_is_followed_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Downloads, parts and orders; nothing of it is on stdout, where results go."""
    with demo.Show(3) as show:
        show.begin(2, 2_000)
        show.advance(2_000)
        show.step("starting")
        show.ready("kafka", 3.25)
        show.placing(3)
        show.progress(2, {"completed": 1})
        show.killed("connect")
        show.judging()
        show.progress(3, {})
    told = capsys.readouterr()
    assert told.out == ""
    for word in ("kafka 3.2 s", "SIGKILL connect", "reading four databases"):
        assert word in told.err
    assert output.notes.stderr
