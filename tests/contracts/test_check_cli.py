"""`towpath contracts check`, `diff` and `snapshot`, in a git repository of their own."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import fastavro
import pytest
from typer.testing import CliRunner

from tests.contracts.test_cli import TOPIC, contracts, forget_records, order_placed, project, write
from towpath.cli.contracts import contracts_app
from towpath.contract.avro_readers import write_body
from towpath.errors import TowpathError

__all__ = ["project"]
TOTAL = {"name": "total", "type": "long", "doc": "In cents."}


def git(folder: Path, *arguments: str) -> None:
    """Run git in `folder`, as nobody in particular."""
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(project: Path) -> Path:
    """Return the project, committed with a total in cents; its classes are generated."""
    if shutil.which("git") is None:
        pytest.skip("there is no git on this machine")
    write(project / "promises/avro/order/OrderPlaced.avsc", order_placed(TOTAL))
    write(project / "promises/examples/order/OrderPlaced/good/one.json", {"order_id": "o-1", "total": 5})
    assert contracts("generate")[0] == 0
    git(project, "init", "-q", "-b", "main")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "first")
    return project


def change(project: Path, *fields: dict[str, Any]) -> None:
    """Change the record, and generate its class anew."""
    write(project / "promises/avro/order/OrderPlaced.avsc", order_placed(*fields))
    assert contracts("generate")[0] == 0


def refused(*arguments: str) -> TowpathError:
    """Run a verb in this process, and return the error that it ends with."""
    forget_records()
    done = CliRunner().invoke(contracts_app, arguments)
    assert isinstance(done.exception, TowpathError), done.output
    return done.exception


def findings(text: str) -> list[dict[str, Any]]:
    """Return the findings of a JSON report."""
    found: list[dict[str, Any]] = json.loads(text)["findings"]
    return found


def test_nothing_changed_is_nothing_found(repository: Path) -> None:
    """Exit code 0, against the commit and against the file of a snapshot."""
    assert contracts("check", "--against", "HEAD") == (0, "")
    assert contracts("snapshot", "before.json")[0] == 0
    assert contracts("check", "--against", "before.json", "--json")[0] == 0


@pytest.mark.parametrize("source", ["main", "before.json"])
def test_a_break_is_found_against_a_commit_and_against_a_file(repository: Path, source: str) -> None:
    """With who breaks, a record that fails, the file and the line."""
    contracts("snapshot", "before.json")
    change(repository, {**TOTAL, "type": "string"})
    code, text = contracts("check", "--against", source, "--json")
    assert code == 3
    (back,) = findings(text)
    assert (back["rule"], back["place"]) == ("compatibility", "OrderPlaced.total")
    assert "billing (reading order.events" in back["breaks"][0]
    assert '"total": 1' in back["sample"]
    assert back["file"] == "promises/avro/order/OrderPlaced.avsc"
    assert f"readers of {source} cannot read" in back["problem"]


def test_a_change_of_meaning_fails_until_it_is_waived(repository: Path) -> None:
    """With a reason, by somebody, until a day; then it is told as waived."""
    change(repository, {**TOTAL, "doc": "In euros."})
    code, text = contracts("check", "--against", "HEAD", "--json")
    (found,) = findings(text)
    assert (code, found["rule"], found["severity"]) == (3, "unit-changed", "error")
    waived = ["waive", found["rule"], found["subject"], "--place", found["place"]]
    assert contracts(*waived, "--reason", "never used", "--actor", "ada", "--until", "2999-12-31")[0] == 0
    code, text = contracts("check", "--against", "HEAD", "--json")
    assert (code, findings(text)[0]["waived_because"]) == (0, "never used (ada, until 2999-12-31)")


def test_topics_are_compared_as_well(repository: Path) -> None:
    """A partition more moves keys."""
    write(repository / "promises/topics/order.events.yaml", TOPIC.replace("partitions: 2", "partitions: 3"))
    code, text = contracts("check", "--against", "HEAD", "--json")
    assert (code, [found["rule"] for found in findings(text)]) == (3, ["topic-partitions-changed"])


@pytest.mark.parametrize("form", ["junit", "sarif", "github", "markdown"])
def test_a_build_server_reads_it_in_its_own_form(repository: Path, form: str) -> None:
    """The document is whole, and the exit code the same."""
    change(repository)
    code, text = contracts("check", "--against", "HEAD", "--format", form)
    assert code == 3
    assert "OrderPlaced.total" in text
    if form == "junit":
        assert ElementTree.fromstring(text.encode()).get("failures") == "1"
    elif form == "sarif":
        assert json.loads(text)["runs"][0]["results"]
    assert contracts("check", "--against", "HEAD", "--format", "xml")[0] == 2


def test_diff_shows_what_is_harmless_too_and_never_fails(repository: Path) -> None:
    """Between two commits, and between a commit and this folder."""
    change(repository, TOTAL, {"name": "note", "type": "string", "default": ""})
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "second")
    for arguments in (["HEAD~1"], ["HEAD~1", "HEAD"]):
        code, text = contracts("diff", *arguments, "--json")
        assert (code, [found["problem"] for found in findings(text)]) == (0, ["OrderPlaced.note: it is new"])
    change(repository)
    code, text = contracts("diff", "HEAD", ".")
    assert (code, "breaks billing" in text, "OrderPlaced.total: it is gone" in text) == (0, True, True)


@pytest.mark.parametrize("option", [("--until", "2020-01-01"), ("--reason", "x"), ("--actor", "")])
def test_a_waiver_that_says_nothing_is_refused(repository: Path, option: tuple[str, str]) -> None:
    """A day that is over, a reason of one letter, nobody: exit code 2, and no file."""
    given = {"--reason": "never used", "--actor": "ada", "--until": "2999-12-31", **dict([option])}
    code, _ = contracts("waive", "judge", "shop.order.OrderPlaced", *[part for pair in given.items() for part in pair])
    assert (code, (repository / "promises/waivers.yaml").exists()) == (2, False)


def test_what_breaks_a_consumer_of_another_project_alone_is_a_break(repository: Path) -> None:
    """A field with a default goes: everybody here can do without it, and billing's own reader schema cannot."""
    write(repository / "promises/readers/billing/OrderPlaced.avsc", order_placed({"name": "note", "type": "string"}))
    change(repository, TOTAL, {"name": "note", "type": "string", "default": ""})
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "second")
    change(repository, TOTAL)
    code, text = contracts("check", "--against", "HEAD", "--json")
    (found,) = findings(text)
    assert (code, found["rule"], found["breaks"]) == (3, "compatibility", ["billing (schemas/readers/billing)"])


def test_a_commit_that_does_not_exist_is_said_in_words(repository: Path) -> None:
    """Exit code 5, and no option of git by another name."""
    assert contracts("check", "--against", "no-such-branch")[0] == 5
    assert contracts("check", "--against", "--output=x")[0] in {2, 5}
    assert contracts("check")[0] == 2


def test_a_commit_that_cannot_be_used_is_said_to_be_that_commit(repository: Path) -> None:
    """A broken file, a link out of the folder, a folder that archives leave out: none of them is in this folder."""
    avro = repository / "promises/avro/order/OrderPlaced.avsc"
    good = avro.read_text(encoding="utf-8")

    def of_commit(code: int) -> str:
        git(repository, "add", "-A")
        git(repository, "commit", "-q", "-m", "odd")
        avro.unlink()
        avro.write_text(good, encoding="utf-8")
        (repository / ".gitattributes").unlink(missing_ok=True)
        error = refused("check", "--against", "HEAD")
        assert error.exit_code == code
        return error.cause

    avro.write_text("{", encoding="utf-8")
    assert "as it was at HEAD: promises/avro/order/OrderPlaced.avsc:1: it is no JSON" in of_commit(3)
    avro.unlink()
    avro.symlink_to("/elsewhere/OrderPlaced.avsc")
    assert "as it was at HEAD: promises/avro/order/OrderPlaced.avsc is a link that leads out" in of_commit(3)
    (repository / ".gitattributes").write_text("promises/** export-ignore\n", encoding="utf-8")
    assert "at HEAD, promises/avro is not in the repository" in of_commit(5)


def test_a_history_that_is_cut_off_is_told_from_a_wrong_name(repository: Path) -> None:
    """A build server's clone holds one commit: fetching what it has already would not help."""
    change(repository, TOTAL, {"name": "note", "type": "string", "default": ""})
    git(repository, "commit", "-q", "-a", "-m", "second")
    (repository / ".git/shallow").write_bytes(
        subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True).stdout
    )
    error = refused("check", "--against", "HEAD~1")
    assert error.cause == "there is no commit, branch or tag 'HEAD~1' here: the history is cut off"
    assert str(error.next_step).startswith("git fetch --unshallow")


def test_real_records_of_a_file_are_read_as_each_reader_does(repository: Path) -> None:
    """Today's class reads them; a consumer's own reader schema does not, and the finding says where."""
    reader = order_placed({"name": "channel", "type": "string"})
    write(repository / "promises/readers/billing/OrderPlaced.avsc", reader)
    lines = [{"type": "shop.order.OrderPlaced", "record": {"order_id": f"o-{n}", "total": n}} for n in range(3)]
    write(repository / "some.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
    code, text = contracts("check", "--from-file", "some.jsonl", "--json")
    (found,) = findings(text)
    assert (code, found["rule"], found["breaks"]) == (3, "real-record", ["billing"])
    assert found["problem"].startswith("some.jsonl:1: billing cannot read it: ")
    assert found["problem"].endswith("(3 of 3 records)")


def test_a_line_that_is_no_record_is_a_finding_and_the_others_are_read(repository: Path) -> None:
    """A short name is enough where it is the only one; each line that is wrong is told with its number."""
    lines = [
        json.dumps({"type": "OrderPlaced", "record": {"order_id": "half\u2028way", "total": 1}}, ensure_ascii=False),
        json.dumps({"type": "OrderPlaced", "record": {"order_id": "o-2", "total": "five"}}),
        json.dumps({"type": "OrderPlacd", "record": {}}),
        json.dumps({"type": "OrderPlaced", "version": 7, "record": {}}),
        json.dumps({"value": base64.b64encode(b"short").decode()}),
        "[",
        "7",
    ]
    write(repository / "some.jsonl", "\n".join(lines) + "\n")
    code, text = contracts("check", "--from-file", "some.jsonl", "--json")
    said = [found["problem"] for found in findings(text)]
    assert code == 3
    assert len(said) == 6
    for number, words in (
        (2, "nobody can read it: it is no shop.order.OrderPlaced: total: takes a whole number, not a text"),
        (3, "nobody can read it: no Avro file defines OrderPlacd (did you mean 'shop.order.OrderPlaced'?)"),
        (4, "nobody can read it: version 7 of shop.order.OrderPlaced was never released"),
        (5, "nobody can read it: it is not in the registry's wire format"),
        (6, "nobody can read it: it is neither "),
        (7, "nobody can read it: it is neither "),
    ):
        assert any(one.startswith(f"some.jsonl:{number}: {words}") for one in said), (number, said)


@pytest.mark.parametrize("content", [b"", b"Obj\x01", b"nonsense"])
def test_a_container_that_is_none_is_said_in_words(repository: Path, content: bytes) -> None:
    """Empty, cut off in its head, or something else."""
    (repository / "some.avro").write_bytes(content)
    code, text = contracts("check", "--from-file", "some.avro", "--json")
    (found,) = findings(text)
    assert (code, "it is no Avro container file, or it is cut off" in found["problem"]) == (3, True)


def test_real_records_of_a_container_are_read_under_their_own_schema(repository: Path) -> None:
    """Written before the total existed: today's form needs it."""
    old = order_placed()
    with (repository / "old.avro").open("wb") as stream:
        fastavro.writer(stream, fastavro.parse_schema(old), [{"order_id": "o-1"}, {"order_id": "o-2"}])
    code, text = contracts("check", "--from-file", "old.avro", "--json")
    (found,) = findings(text)
    assert (code, found["subject"]) == (3, "shop.order.OrderPlaced")
    assert "the form of today cannot read it" in found["problem"]


def test_a_line_that_is_no_record_is_named(repository: Path) -> None:
    """Neither bytes in the wire format nor a record as JSON."""
    raw = base64.b64encode(write_body(order_placed(TOTAL), {"order_id": "o", "total": 1})).decode()
    for line in ("[]", '{"value": "?"}', json.dumps({"value": raw[:4]}), '{"type": "shop.order.OrderPlaced"}'):
        write(repository / "bad.jsonl", line)
        assert contracts("check", "--from-file", "bad.jsonl")[0] == 3, line
