"""`towpath replay shadow` from a captured file, without any part running."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sagas import place_order
from tests.unit.orchestrator.desktop import CODEC
from tests.unit.replay.test_sending import broker_with
from towpath.cli import _register, app
from towpath.cli.replay_plans import _Watch
from towpath.errors import WorldError
from towpath.replay.captured import line_of
from towpath.replay.plan import Counted, Plan, Target
from towpath.replay.progress import Progress
from towpath.replay.runs import RecordedRun, runs_of_lines
from towpath.replay.selection import Selection
from towpath.saga.testing import inputs_of, read_history

ROOT = Path(__file__).resolve().parents[4]
HISTORIES = ROOT / "tests" / "histories" / "place_order" / "v1"

_register()


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    """Write every golden history of place_order into one captured file, as `replay capture` does."""
    path = tmp_path / "runs.jsonl"
    lines = []
    for file in sorted(HISTORIES.glob("*.jsonl")):
        history = read_history(file)
        inputs = tuple(inputs_of(place_order.saga.definition, history))
        lines.append(RecordedRun("place_order", 1, file.stem, inputs).to_line())
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def stricter(tmp_path: Path) -> Path:
    """Write a place_order that asks a person about every order."""
    text = (ROOT / "sagas" / "place_order.py").read_text(encoding="utf-8")
    path = tmp_path / "stricter.py"
    path.write_text(text.replace("APPROVAL_ABOVE_CENTS = 1_000_00", "APPROVAL_ABOVE_CENTS = 1"), encoding="utf-8")
    return path


def run(*arguments: object) -> tuple[int, str]:
    """Run a verb of `replay`; return its exit code, or its error's, and what it printed as results."""
    result = CliRunner().invoke(app, ["replay", *map(str, arguments)])
    code = getattr(result.exception, "exit_code", result.exit_code) if result.exception else result.exit_code
    return int(code), result.stdout


def test_the_project_as_it_is_changes_nothing(captured: Path) -> None:
    """The same definition: every run is the same, and CI passes."""
    code, text = run(
        "shadow", "place_order", "--with", "place_order", "--from", captured, "--json", "--fail-on", "possibly"
    )
    report = json.loads(text)
    assert code == 0
    assert (report["instances"], report["same"]) == (len(list(HISTORIES.glob("*.jsonl"))),) * 2
    assert report["groups"] == []


def test_a_change_is_told_in_numbers_rows_and_a_page(captured: Path, stricter: Path, tmp_path: Path) -> None:
    """Counts, what the orders are worth, an example of each kind; and CI can stop it."""
    page = tmp_path / "shadow.html"
    told = (
        "shadow",
        "place_order",
        "--with",
        stricter,
        "--from",
        captured,
        "--value",
        "tests.unit.cli.replay.worth:total",
    )
    code, text = run(*told, "--json", "--html", page)
    report = json.loads(text)
    assert code == 0
    assert report["possibly"] == len(report["different_instances"]) > 0
    (group,) = {row["becomes"] for row in report["groups"]}
    assert group == "it waits for approval"
    assert sum(row["value"] for row in report["groups"]) > 0
    assert all(row["explored"] > 1 for row in report["different_instances"])
    assert "it waits for approval" in page.read_text(encoding="utf-8")
    code, text = run(*told, "--fail-on", "possibly")
    assert code == 3
    assert "possibly different" in text
    assert run(*told, "--fail-on", "different")[0] == 0


def test_a_definition_of_a_git_ref_decides_as_well(captured: Path) -> None:
    """The file as it was committed last."""
    code, text = run("shadow", "place_order", "--with", "HEAD:sagas/place_order.py", "--from", captured, "--json")
    assert code == 0
    assert json.loads(text)["instances"] > 0


def test_what_cannot_be_compared_is_counted(captured: Path, tmp_path: Path) -> None:
    """A line that is no run, a run whose beginning is gone, a version that the project does not have."""
    first, second, *_ = captured.read_text(encoding="utf-8").splitlines()
    cut, newer = json.loads(first), json.loads(second)
    cut["entries"] = cut["entries"][1:]
    newer["version"] = 9
    path = tmp_path / "odd.jsonl"
    path.write_text("\n".join(["{", json.dumps(cut), json.dumps(newer)]), encoding="utf-8")
    code, text = run("shadow", "place_order", "--with", "place_order", "--from", path, "--json")
    report = json.loads(text)
    assert code == 0
    assert report["instances"] == 0
    assert sum(report["left_out"].values()) == 3


def test_a_run_on_which_the_old_definition_raises_is_left_out_and_the_others_compared(
    captured: Path, tmp_path: Path
) -> None:
    """It is a person's file, and of a run it may know less than the one that decided then."""
    text = (ROOT / "sagas" / "place_order.py").read_text(encoding="utf-8")
    old, at = tmp_path / "old.py", text.index(":\n", text.index("def authorise_payment(")) + 2
    old.write_text(f'{text[:at]}    raise KeyError("a field")\n{text[at:]}', encoding="utf-8")
    code, text = run("shadow", "place_order", "--with", "place_order", "--old", old, "--from", captured, "--json")
    report, runs = json.loads(text), len(captured.read_text(encoding="utf-8").splitlines())
    ((reason, left_out),) = report["left_out"].items()
    assert (code, report["instances"] + left_out) == (0, runs)
    assert "step authorise_payment: authorise_payment raised" in reason
    assert report["instances"] > 0 < left_out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--with", "nothing.py"), 5),
        (("--with", "no_such_saga"), 5),
        (("--with", "HEAD:nothing.py"), 5),
        (("--with", "place_order", "--from", "nothing.jsonl"), 5),
        (("--with", "place_order", "--value", "nothing"), 2),
        (("--with", "place_order", "--value", "nothing:at_all"), 2),
        (("--with", "place_order", "--value", "tests.unit.cli.replay.worth:none"), 2),
        (("--with", "place_order", "--value", "tests.unit.cli.replay.worth:raising"), 2),
        (("--with", "place_order", "--html", "nowhere/page.html"), 2),
        (("--with", "place_order", "--html", "tests"), 2),
    ],
)
def test_a_persons_mistake_ends_with_its_code(captured: Path, arguments: tuple[str, ...], code: int) -> None:
    """No traceback: each says what to name."""
    more = () if "--from" in arguments else ("--from", captured)
    assert run("shadow", "place_order", *arguments, *more)[0] == code


def test_ci_is_not_told_that_nothing_differs_where_nothing_was_compared(captured: Path, tmp_path: Path) -> None:
    """An empty file, runs of another saga, lines that are none: without --fail-on that is said, with it it fails."""
    told = ("shadow", "place_order", "--with", "place_order", "--from")
    path = tmp_path / "damaged.jsonl"
    for text in ("", "{", captured.read_text(encoding="utf-8").replace('"saga": "place_order"', '"saga": "other"')):
        path.write_text(text, encoding="utf-8")
        assert run(*told, path)[0] == 0
        assert run(*told, path, "--fail-on", "different")[0] == 5


def test_a_file_that_is_no_text_is_said(tmp_path: Path) -> None:
    """Of a plan, of captured runs, of ids, of a saga: never a traceback."""
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\xff\xfe")
    for arguments in (
        ("run", path, "--reason", "x", "--yes"),
        ("shadow", "place_order", "--with", "place_order", "--from", path),
        ("plan", "--topic", "order.events", "--ids", path),
        ("plan", "--from", path),
        ("shadow", "place_order", "--with", shutil.copy(path, tmp_path / "saga.py"), "--from", path),
    ):
        assert run(*arguments)[0] == 2, arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ("--since", "2026-01-02", "--until", "2026-01-01"),
        ("--from-offset", "5", "--to-offset", "5"),
        ("--partition", "-1"),
        ("--output", "nowhere/plan.json"),
        ("--decode", "--output", "plan.json"),
    ],
)
def test_what_a_plan_can_never_do_is_said_before_anything_is_read(arguments: tuple[str, ...]) -> None:
    """No part runs here: it is a usage error, not one of a part that is away."""
    assert run("plan", "--topic", "order.events", *arguments)[0] == 2


def test_files_put_together_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of order, and some records twice: nothing of it is sent, so no run has to go on anywhere."""
    monkeypatch.setattr("towpath.cli.replay_planning.codec_of_topics", lambda *_: CODEC)
    records = broker_with(20).records("order.events")
    path = tmp_path / "together.jsonl"
    path.write_text("".join(map(line_of, [*records[5:], *records])), encoding="utf-8")
    code, text = run("plan", "--from", path, "--decode", "--json")
    assert (code, json.loads(text)["counted"]["records"]) == (0, 35)


def test_a_capture_that_fails_leaves_no_file_and_the_next_one_writes_it(
    captured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a file would be taken for all runs, and be in the way of the next attempt."""
    path, lines = tmp_path / "captured.jsonl", captured.read_text(encoding="utf-8").splitlines()
    runs = list(runs_of_lines(lines, lambda *_: place_order.saga.definition))

    def away(*_: object) -> Iterator[object]:
        yield runs[0]
        raise WorldError("Kafka is away")

    monkeypatch.setattr("towpath.cli.replay._recorded", away)
    assert run("capture", "place_order", "--output", path)[0] == 1
    assert list(tmp_path.glob("captured*")) == []
    monkeypatch.setattr("towpath.cli.replay._recorded", lambda *_: iter(runs))
    assert run("capture", "place_order", "--output", path)[0] == 0
    assert path.read_text(encoding="utf-8").splitlines() == lines
    assert run("capture", "place_order", "--output", path)[0] == 6


def test_each_transaction_is_written_down_however_fast_they_follow() -> None:
    """A run that is killed leaves its record one transaction behind at most; one that is asked to stop stops then."""
    plan = Plan("r1", Selection(), Target(), {}, {}, False, None, Counted().to_json(), ())
    noted: list[int] = []

    def note(sent: int) -> bool:
        noted.append(sent)
        return sent >= 130

    watch = _Watch(plan, 100, note)
    assert [watch.keep_on(Progress(sent, {}, 0.0)) for sent in (10, 20, 30)] == [True, True, False]
    assert noted == [110, 120, 130]
