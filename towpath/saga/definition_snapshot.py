"""A definition without its functions: what can be recorded, compared with a later one, and explored, but not run.

The outline is plain JSON. It says everything about a saga that other people rely on: steps by key, their order, who
does them, which replies mean what, how they are undone, and every time and limit. Two definitions with equal outlines
decide alike as far as their functions do. Words of the language that came later stand in it only where they are used,
so that what was recorded before stays as it was.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from towpath.saga.definition import (
    Activity,
    Definition,
    GatherDefinition,
    Kind,
    OnTimeout,
    Policy,
    ProlongDefinition,
    RemindDefinition,
    SecondStart,
    StepDefinition,
    UndoDefinition,
)

DefinitionSnapshot = dict[str, Any]


def name_of(record: type) -> str:
    """Return the name by which a record class is known outside its module: its schema's, if it has one."""
    schema_name: str = getattr(record, "SCHEMA_NAME", record.__name__)
    return schema_name


def definition_snapshot_of(definition: Definition) -> DefinitionSnapshot:
    """Return a definition's outline."""
    return {
        "saga": definition.name,
        "version": definition.version,
        "starts_on": name_of(definition.starts_on),
        "deadline_milliseconds": definition.deadline_milliseconds,
        "second_start": definition.second_start.value,
        **_used(
            also_starts_on=[name_of(kind) for kind in definition.also_starts_on],
            cancels=[name_of(kind) for kind in definition.cancels],
            keyed_by=_function_name(definition.keyed_by),
        ),
        "steps": [_step_outline(definition, step) for step in definition.steps],
    }


def _step_outline(definition: Definition, step: StepDefinition) -> DefinitionSnapshot:
    return {
        "key": step.key,
        "kind": step.kind.value,
        "activity": step.activity.value,
        "requires": _keys(definition, step.requires),
        "needs": _keys(definition, step.needs),
        "participant": step.participant,
        "build": _function_name(step.build),
        "outcomes": _outcomes(step.outcomes),
        "policy": None if step.policy is None else asdict(step.policy),
        "undo": None if step.undo is None else _undo_outline(definition, step.undo),
        "when": _function_name(step.when),
        "over": _function_name(step.over),
        "items_max": step.items_max,
        "on_timeout": None if step.on_timeout is None else step.on_timeout.value,
        "wait_milliseconds": step.wait_milliseconds,
        "child": None if step.child is None else definition_snapshot_of(step.child),
        "holds": list(step.holds),
        "touches": list(step.touches),
        **_used(
            tolerated=[name_of(kind) for kind in step.tolerated],
            instead_of=None if step.instead_of is None else definition.steps[step.instead_of].key,
            options=list(step.options),
            only_in=_keys(definition, step.only_in),
            until=_function_name(step.until),
            remind=None if step.remind is None else _remind_outline(step.remind),
            prolong=None if step.prolong is None else _prolong_outline(step.prolong),
            keyed_by=_function_name(step.keyed_by),
            enough=step.enough,
            gather=None if step.gather is None else _gather_outline(step.gather),
        ),
    }


def _used(**words: Any) -> DefinitionSnapshot:
    """Return what is said by words that came later, without those that are not used."""
    return {word: said for word, said in words.items() if said}


def _remind_outline(remind: RemindDefinition) -> DefinitionSnapshot:
    return {
        "build": _function_name(remind.build),
        "event": name_of(remind.event),
        "every_milliseconds": remind.every_milliseconds,
        "reminders_max": remind.reminders_max,
    }


def _prolong_outline(prolong: ProlongDefinition) -> DefinitionSnapshot:
    return {
        "signal": name_of(prolong.signal),
        "by_milliseconds": prolong.by_milliseconds,
        "times_max": prolong.times_max,
    }


def _gather_outline(gather: GatherDefinition) -> DefinitionSnapshot:
    return {
        "signals": [name_of(kind) for kind in gather.signals],
        "into": name_of(gather.into),
        "fold": _function_name(gather.fold),
        "signals_max": gather.signals_max,
        "enough": _function_name(gather.enough),
    }


def _undo_outline(definition: Definition, undo: UndoDefinition) -> DefinitionSnapshot:
    return {
        "participant": undo.participant,
        "build": _function_name(undo.build),
        "needs": _keys(definition, undo.needs),
        "outcomes": _outcomes(undo.outcomes),
        "policy": asdict(undo.policy),
        "takes_cause": undo.takes_cause,
        # Written only where it is so: definitions that were recorded before there was such a choice stay the same.
        **({"when_refused": True} if undo.when_refused else {}),
        **({} if undo.in_order else {"in_order": False}),
    }


def _keys(definition: Definition, positions: tuple[int, ...]) -> list[str]:
    return [definition.steps[position].key for position in positions]


def _outcomes(outcomes: Any) -> dict[str, bool]:
    return {name_of(reply): succeeds for reply, succeeds in outcomes.items()}


def _function_name(function: Callable[..., Any] | None) -> str | None:
    return None if function is None else getattr(function, "__name__", "function")


def fingerprint_of(definition: Definition) -> str:
    """Return 16 hexadecimal digits that differ where two definitions of one version decide differently.

    The order of the steps does not count, since state is read by step key; nor do the names of functions; nor what
    lies inside a sub-saga, whose instances carry the fingerprint of their own definition.
    """
    snapshot = definition_snapshot_of(definition)
    steps = [_decisive(step, definition.steps[definition.index[step["key"]]]) for step in snapshot["steps"]]
    keyed = _used(keyed_by=definition.keyed_by is not None)
    decisive = {**snapshot, **keyed, "steps": sorted(steps, key=lambda step: str(step["key"]))}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _decisive(snapshot: DefinitionSnapshot, step: StepDefinition) -> DefinitionSnapshot:
    return {
        **snapshot,
        **{name: snapshot[name] is not None for name in ("build", "when", "over")},
        **_used(
            until="until" in snapshot,
            keyed_by="keyed_by" in snapshot,
            remind=step.remind and {**snapshot["remind"], "build": True},
            gather=step.gather and {**snapshot["gather"], "fold": True, "enough": step.gather.enough is not None},
        ),
        "requires": sorted(snapshot["requires"]),
        "undo": snapshot["undo"] and {**snapshot["undo"], "build": snapshot["undo"]["build"] is not None},
        "child": step.child and [step.child.name, step.child.kind.value],
    }


def differences(before: DefinitionSnapshot, after: DefinitionSnapshot) -> list[str]:
    """Say in words what differs between two outlines of one saga, step by step; nothing if they are equal."""
    words = [
        f"{name} was {before.get(name)!r} and is {after.get(name)!r}"
        for name in {**before, **after}
        if name not in ("version", "steps") and before.get(name) != after.get(name)
    ]
    then, now = ({step["key"]: step for step in outline["steps"]} for outline in (before, after))
    words += [f"step {key} is gone" for key in then if key not in now]
    words += [f"step {key} is new" for key in now if key not in then]
    for key in (key for key in then if key in now):
        words += [f"step {key}: {change}" for change in _changes(then[key], now[key])]
    return words


def _changes(before: DefinitionSnapshot, after: DefinitionSnapshot, within: str = "") -> Iterator[str]:
    for name in dict.fromkeys((*before, *after)):
        value = before.get(name)
        if isinstance(value, dict) and isinstance(after.get(name), dict) and name != "outcomes":
            yield from _changes(value, after[name], f"{within}{name}.")
        elif value != after.get(name) and (name in before or after[name]):  # a choice there was not then, not taken
            yield f"{within}{name} was {value!r} and is {after.get(name)!r}"


def definition_of(outline: DefinitionSnapshot) -> Definition:
    """Return a definition with that outline. Its records are empty classes of the right names; its functions raise.

    Raises KeyError or ValueError where it is not an outline.
    """
    return _Reader({}).definition(outline)


class _Reader:
    """Reads one outline; a name means the same class wherever it stands."""

    def __init__(self, classes: dict[str, type]) -> None:
        self._classes = classes
        self._functions: dict[str, Callable[..., Any]] = {}

    def definition(self, outline: DefinitionSnapshot) -> Definition:
        positions = {step["key"]: position for position, step in enumerate(outline["steps"])}
        return Definition(
            outline["saga"],
            outline["version"],
            self._class(outline["starts_on"]),
            outline["deadline_milliseconds"],
            tuple(self._step(step, positions) for step in outline["steps"]),
            SecondStart(outline["second_start"]),
            tuple(self._class(name) for name in outline.get("also_starts_on", ())),
            tuple(self._class(name) for name in outline.get("cancels", ())),
            self._function(outline.get("keyed_by")),
        )

    def _step(self, outline: DefinitionSnapshot, positions: dict[str, int]) -> StepDefinition:
        child = outline["child"]
        return StepDefinition(
            key=outline["key"],
            kind=Kind(outline["kind"]),
            activity=Activity(outline["activity"]),
            requires=tuple(positions[key] for key in outline["requires"]),
            needs=tuple(positions[key] for key in outline["needs"]),
            participant=outline["participant"],
            build=self._function(outline["build"]),
            outcomes=self._outcomes(outline["outcomes"]),
            policy=None if outline["policy"] is None else Policy(**outline["policy"]),
            undo=None if outline["undo"] is None else self._undo(outline["undo"], positions),
            when=self._function(outline["when"]),
            over=self._function(outline["over"]),
            items_max=outline["items_max"],
            on_timeout=None if outline["on_timeout"] is None else OnTimeout(outline["on_timeout"]),
            wait_milliseconds=outline["wait_milliseconds"],
            child=None if child is None else _Reader(self._classes).definition(child),
            holds=tuple(outline["holds"]),
            touches=tuple(outline["touches"]),
            tolerated=tuple(self._class(name) for name in outline.get("tolerated", ())),
            instead_of=positions[outline["instead_of"]] if "instead_of" in outline else None,
            options=tuple(outline.get("options", ())),
            only_in=tuple(positions[key] for key in outline.get("only_in", ())),
            until=self._function(outline.get("until")),
            remind=self._remind(outline["remind"]) if "remind" in outline else None,
            prolong=self._prolong(outline["prolong"]) if "prolong" in outline else None,
            keyed_by=self._function(outline.get("keyed_by")),
            enough=outline.get("enough", 0),
            gather=self._gather(outline["gather"]) if "gather" in outline else None,
        )

    def _remind(self, outline: DefinitionSnapshot) -> RemindDefinition:
        build = self._function(outline["build"])
        assert build is not None  # every reminder has one
        event = self._class(outline["event"])
        return RemindDefinition(build, event, outline["every_milliseconds"], outline["reminders_max"])

    def _prolong(self, outline: DefinitionSnapshot) -> ProlongDefinition:
        return ProlongDefinition(self._class(outline["signal"]), outline["by_milliseconds"], outline["times_max"])

    def _gather(self, outline: DefinitionSnapshot) -> GatherDefinition:
        fold = self._function(outline["fold"])
        assert fold is not None  # every wait that gathers has one
        signals = tuple(self._class(name) for name in outline["signals"])
        enough = self._function(outline["enough"])
        return GatherDefinition(signals, self._class(outline["into"]), fold, outline["signals_max"], enough)

    def _undo(self, outline: DefinitionSnapshot, positions: dict[str, int]) -> UndoDefinition:
        return UndoDefinition(
            participant=outline["participant"],
            build=self._function(outline["build"]),
            needs=tuple(positions[key] for key in outline["needs"]),
            outcomes=self._outcomes(outline["outcomes"]),
            policy=Policy(**outline["policy"]),
            takes_cause=outline["takes_cause"],
            when_refused=outline.get("when_refused", False),
            in_order=outline.get("in_order", True),
        )

    def _outcomes(self, outline: dict[str, bool]) -> dict[type, bool]:
        return {self._class(name): succeeds for name, succeeds in outline.items()}

    def _class(self, name: str) -> type:
        if name not in self._classes:
            self._classes[name] = type(name.rpartition(".")[2], (), {"SCHEMA_NAME": name})
        return self._classes[name]

    def _function(self, name: str | None) -> Callable[..., Any] | None:
        if name is None:
            return None
        if name not in self._functions or name == "<lambda>":  # two functions without a name are two

            def absent(*_: object) -> Any:
                raise RuntimeError(f"{name} was not recorded: a definition read from its outline cannot run")

            absent.__name__ = name
            self._functions[name] = absent
        return self._functions[name]
