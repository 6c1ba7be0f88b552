"""`towpath add`: what it takes from the files of a project."""

import json
import sys
from pathlib import Path

import pytest

from towpath import cli
from towpath.cli.add import _fields, _Known
from towpath.scaffold.plan import project_files
from towpath.scaffold.writing import write_missing
from towpath.settings import load_settings


def test_of_two_records_in_one_file_the_one_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    """A record whose name ends with another's is another record."""
    write_missing(tmp_path, project_files("myshop", "0.1.0"))
    records = [
        {"type": "record", "name": name, "namespace": "myshop.payment", "fields": [{"name": field, "type": "string"}]}
        for name, field in (("PreAuthorise", "before"), ("Authorise", "amount"))
    ]
    (tmp_path / "schemas" / "avro" / "payment" / "both.avsc").write_text(json.dumps(records), encoding="utf-8")
    known = _Known.of(load_settings(tmp_path, environment=False))
    (field,) = _fields(known, "myshop.payment.Authorise", {"myshop.payment.Authorise": [{"amount": "9"}]})
    assert (field.name, field.type, field.example) == ("amount", "string", "9")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as `towpath new` writes it, without what is generated."""
    root = tmp_path_factory.mktemp("shop") / "myshop"
    write_missing(root, project_files("myshop", "0.1.0"))
    return root


def run(root: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a verb as a person does; return its exit code. An error that is none of ours would pass through."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["towpath", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["service", "class"], 2),
        (["saga", "class"], 2),
        (["view", "class"], 2),
        (["service", "a" * 70], 2),
        (["service", "a" * 300], 2),
        (["view", "a" * 300], 2),
        (["service", "postgres"], 2),
        (["service", "template1"], 2),
        (["service", "views"], 2),
        (["view", "sagas"], 2),
        (["record", "class.Thing"], 2),
        (["record", f"order.{'A' * 300}"], 2),
        (["record", "order.Thing", "x:int", "x:int"], 2),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_a_name_that_cannot_work_is_refused_before_anything_is_written(
    words: list[str], code: int, begun: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words of Python's own, databases of PostgreSQL's own, names longer than a table's, a field given twice."""
    before = {path for path in begun.rglob("*") if "__pycache__" not in path.parts}
    assert run(begun, ["add", *words], monkeypatch) == code
    assert {path for path in begun.rglob("*") if "__pycache__" not in path.parts} == before
    assert "next:" in capsys.readouterr().err


def test_a_project_is_not_begun_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor under a name that no file system and no replication slot takes."""
    (tmp_path / "afile").write_text("mine", encoding="utf-8")
    assert run(tmp_path, ["new", "afile"], monkeypatch) == 6
    assert (tmp_path / "afile").read_text(encoding="utf-8") == "mine"
    assert run(tmp_path, ["new", "a" * 300], monkeypatch) == 2
    assert run(tmp_path, ["new", "afile/myshop"], monkeypatch) == 1
    assert "afile/myshop" in capsys.readouterr().err.replace("\n", "")


def test_a_project_file_that_is_no_text_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes that are no UTF-8 are a mistake of the file's, like any other."""
    (tmp_path / "towpath.toml").write_bytes(b"\xff\xfe")
    assert run(tmp_path, ["doctor"], monkeypatch) == 2
    assert "towpath.toml" in capsys.readouterr().err.replace("\n", "")
