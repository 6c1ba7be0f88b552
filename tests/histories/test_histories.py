"""Golden histories: what was decided once is decided so for ever."""

import json
from pathlib import Path
from typing import Any

import pytest

from sagas import cancel_order, place_order
from tests.histories.record import FOLDER, runs
from towpath.saga import Definition
from towpath.saga.definition_snapshot import definition_snapshot_of, differences
from towpath.saga.testing import HistoryChanged, history_of, read_history, replay, write_history

DEFINITIONS: dict[str, Definition] = {
    "place_order/v1": place_order.saga.definition,
    "cancel_order/v1": cancel_order.saga.definition,
}
FILES = sorted(FOLDER.rglob("*.jsonl"))


def name(path: Path) -> str:
    """Return a file's name without folder and ending of all histories."""
    return str(path.relative_to(FOLDER).with_suffix(""))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_recorded_run_is_decided_as_it_was(path: Path) -> None:
    """The recorded inputs give the recorded decisions."""
    definition = DEFINITIONS[str(path.parent.relative_to(FOLDER))]
    replay(definition, read_history(path), name(path))


@pytest.mark.parametrize("version", DEFINITIONS)
def test_a_definition_is_what_was_recorded_under_its_version(version: str) -> None:
    """What is in production is not changed without a new version."""
    recorded = json.loads((FOLDER / version / "definition.json").read_text(encoding="utf-8"))
    assert differences(recorded, json.loads(json.dumps(definition_snapshot_of(DEFINITIONS[version])))) == []


def test_every_run_is_recorded_and_no_file_is_orphaned() -> None:
    """A run without its file would never be replayed, and a file without its run never be understood.

    `recorded_...` were written by `towpath saga history --golden`, from runs on the real stack.
    """
    told = [path for path in FILES if not path.name.startswith("recorded_")]
    assert sorted(runs()) == [name(path) for path in told]
    assert len(told) < len(FILES)


def altered(entry: dict[str, Any], at: int, change: dict[str, Any]) -> None:
    entry["decision"]["effects"][at].update(change)


@pytest.mark.parametrize(
    "change",
    [{"attempt": 2}, {"deadline_milliseconds": 1}, {"participant": "catalogue"}],
    ids=lambda change: str(*change),
)
def test_a_decision_that_changed_is_named(change: dict[str, Any]) -> None:
    """An attempt, a deadline or a participant that differs is found, and the message names the input."""
    history = read_history(FOLDER / "place_order/v1/completed.jsonl")
    entry = history["entries"][2]
    position = next(at for at, effect in enumerate(entry["decision"]["effects"]) if effect["effect"] == "SendCommand")
    altered(entry, position, change)
    with pytest.raises(HistoryChanged, match=r"input 3 \(Replied\) is decided differently"):
        replay(DEFINITIONS["place_order/v1"], history)


def test_a_history_is_written_once(tmp_path: Path) -> None:
    """A golden file that exists is never written over."""
    talk = runs()["cancel_order/v1/has_left"]
    history = history_of(talk.definition, talk.inputs, talk.decisions)
    path = tmp_path / "v1" / "run.jsonl"
    write_history(path, history)
    assert json.dumps(read_history(path), sort_keys=True) == json.dumps(history, sort_keys=True)
    with pytest.raises(FileExistsError, match="never rewritten"):
        write_history(path, history)
