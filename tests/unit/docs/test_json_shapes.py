"""What the page of `--json` says is what the verbs print, as far as they can be run offline; and it has every verb."""

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from typer.testing import CliRunner

from infra.docs import json_shapes, reference
from infra.docs.json_shapes import OTHERWISE, SHAPES
from tests.stack_fixture import ROOT
from tests.tidy.test_advice import commands_in, root
from towpath import cli
from towpath.contract.registry import Registration
from towpath.demo.verdict import Verdict
from towpath.orchestrator.records import HistoryEntry
from towpath.orchestrator.why import Line
from towpath.positions.decision import PositionDecision
from towpath.stack.findings import Finding
from towpath.view.versions.standing import VersionDecision


def verbs() -> Iterator[str]:
    """Yield each verb that has `--json`."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[str]:
        for name, below in getattr(command, "commands", {}).items():
            yield from walk(below, (*words, name))
        if any("--json" in getattr(one, "opts", ()) for one in command.params):
            yield " ".join(words)

    yield from walk(root(), ())


def test_every_verb_that_prints_json_is_on_its_page() -> None:
    """And no other; what is said of options names those that exist."""
    assert set(SHAPES) == set(verbs())
    assert set(OTHERWISE) <= set(SHAPES)
    text = reference.json_page()
    for verb in SHAPES:
        assert f"## `towpath {verb}`\n" in text
    assert not [words for said in OTHERWISE.values() for words in commands_in(said)]


@pytest.mark.parametrize(
    ("verb", "kind", "left_out", "added"),
    [
        ("demo", Verdict, set(), set()),
        ("doctor", Finding, set(), set()),
        ("contracts register", Registration, set(), set()),
        ("positions accept", PositionDecision, set(), {"done"}),
        ("views promote", VersionDecision, set(), {"done", "workers"}),
        ("saga why", Line, set(), set()),
        ("saga history", HistoryEntry, {"message", "headers", "at_milliseconds"}, {"at"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_shape_has_the_fields_of_its_class(verb: str, kind: Any, left_out: set[str], added: set[str]) -> None:
    """What is printed is the class with all its fields."""
    shape = SHAPES[verb][0] if isinstance(SHAPES[verb], list) else SHAPES[verb]
    assert set(shape) == {field.name for field in fields(kind)} - left_out | added


def differences(shape: Any, said: Any, place: str = "") -> Iterator[str]:
    """Yield where a document is not of its shape."""
    if isinstance(shape, dict) and isinstance(said, dict):
        if shape:
            yield from (f"{place}.{name} is in one of them alone" for name in sorted(shape.keys() ^ said.keys()))
            for name in shape.keys() & said.keys():
                yield from differences(shape[name], said[name], f"{place}.{name}")
    elif isinstance(shape, list) and isinstance(said, list):
        for one in said:
            yield from differences(shape[0], one, f"{place}[]")
    elif shape is None or said is None:
        if not (said is None or isinstance(said, str | dict | list | int | float)):
            yield f"{place} is {said!r}"
    elif isinstance(shape, dict | list) is not isinstance(said, dict | list):
        yield f"{place} is {said!r}, and is to be like {shape!r}"


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("run", []),
        ("contracts test", []),
        ("contracts diff", [".", "."]),
        ("contracts deploy-order", ["--to", "nowhere"]),
        ("contracts can-deploy", ["order@1.0.0", "--to", "nowhere"]),
        ("saga diagram", ["place_order"]),
        ("saga test", []),
        ("saga check", ["--saga", "cancel_order", "--dry-run"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_printed_has_its_shape(monkeypatch: pytest.MonkeyPatch, verb: str, arguments: list[str]) -> None:
    """In the reference project, without a stack; whatever the exit code says."""
    monkeypatch.chdir(ROOT)
    cli._register()
    done = CliRunner().invoke(cli.app, [*verb.split(), *arguments, "--json"])
    assert done.stdout, done.output
    assert list(differences(SHAPES[verb], json.loads(done.stdout))) == []


def test_a_document_of_another_shape_is_told() -> None:
    """Else the other test would show nothing."""
    assert list(differences(json_shapes.FINDING, {"severity": "ok", "subject": "", "finding": ""}))
    assert list(differences([{"a": ""}], [{"a": ["b"]}]))
    assert not list(differences({"a": None, "b": {}}, {"a": "x", "b": {"c": 1}}))
