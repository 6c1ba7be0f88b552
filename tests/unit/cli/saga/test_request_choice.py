"""Which instances a person asks something of: what narrows the choice is heeded, one that cannot be asked is left."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.saga.support import OPENED, Agreed, Opened, Yes, chain, do, named, pivot, saga, service
from towpath.cli import saga_requests
from towpath.cli.saga_request_options import Options
from towpath.cli.saga_requests import _act, _Asked, _choose
from towpath.errors import ConfigurationError, NotFoundError, RefusedError
from towpath.orchestrator.instance_status import KeptInstance
from towpath.orchestrator.requests import preview, request_of
from towpath.saga import Saga, days, seconds
from towpath.saga.inputs import Action
from towpath.saga.state import NEED_A_PERSON, SagaState
from towpath.saga.testing import given


def running(key: str = "o-1", version: int = 1) -> KeptInstance:
    """Return an instance that runs and changed just now."""
    state = given(chain(), OPENED).expect_anything().state
    return KeptInstance(replace(state, key=key, saga_id=key, version=version), state.started_milliseconds, needed=True)


@pytest.mark.parametrize(
    "options", [Options(status="stuck"), Options(older_than=3600.0), Options(version=7), Options(step="z")]
)
def test_what_is_said_beside_an_id_narrows_the_choice(options: Options) -> None:
    """An instance that does not match is not acted on, and is not said to be unknown."""
    one = running()
    selection, asked = options.selection("o-1"), _Asked("cancel", "o-1", options)
    with pytest.raises(NotFoundError, match="does not match what was said beside it"):
        _choose([one], "shape", asked, selection, one.changed_milliseconds + 1)
    assert _choose([one], "shape", asked, Options(status="running").selection("o-1"), 0) == [one]


def test_an_id_and_a_file_of_ids_exclude_each_other() -> None:
    """Neither is dropped in silence."""
    with pytest.raises(ConfigurationError, match="exclude each other"):
        Options(file=Path("ids")).selection("o-1")


def test_the_step_of_a_request_about_a_step_is_no_filter() -> None:
    """The machine says how the step stands."""
    assert Options(step="z").selection("o-1", of_a_step=True).of([running()], 0)


def test_an_instance_of_a_version_that_the_project_lacks_is_left_out_of_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All others are asked; alone it is an error."""
    kept = [running("o-1", 1), running("o-2", 7), running("o-3", 1)]

    def find(_: object, name: str, version: int) -> Any:
        if version == 1:
            return chain().definition
        raise NotFoundError(f"no saga {name}@{version}")

    def room(*_: object) -> Any:
        return SimpleNamespace(instances=lambda which: [one for one in kept if which in (None, one.state.key)])

    asked: list[str] = []
    monkeypatch.setattr(saga_requests, "Room", room)
    monkeypatch.setattr(saga_requests, "find_definition", find)
    monkeypatch.setattr(saga_requests, "show_previews", lambda all_, *_, **__: asked.extend(one.key for one in all_))
    settings: Any = None
    _act(settings, "shape", _Asked("cancel", None, Options(status="running", dry_run=True, actor="ada")))
    assert asked == ["o-1", "o-3"]
    assert "left out: o-2 (key o-2): no saga shape@7" in capsys.readouterr().err
    with pytest.raises(NotFoundError):
        _act(settings, "shape", _Asked("cancel", "o-2", Options(dry_run=True, actor="ada")))


def taking(reply: type, version: int) -> tuple[Saga[Opened], KeptInstance]:
    """Return a saga whose retriable step takes that reply, and an instance of it that is stuck there."""
    made = saga("s")
    made.retriable(service, do("ship"), after=pivot(made), succeeds=reply, within=seconds(10), key="ship")
    state = given(made, OPENED).expect_anything().when(Yes()).expect_anything().when_time_passes(days(4)).state
    state = replace(state, key=f"o-{version}", saga_id=f"o-{version}", version=version)
    return made, KeptInstance(state, state.started_milliseconds, needed=True)


def test_one_of_many_whose_step_takes_no_such_reply_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All others are asked; alone it is an error."""
    versions = {1: taking(Agreed, 1), 2: taking(Yes, 2)}

    def record(name: str, _: object, *, like: bool, among: list[str]) -> Yes:
        if name not in among:
            raise NotFoundError(f"{name} is none of the records that fit here")
        return Yes()

    def room(*_: object) -> Any:
        kept = [one for _, one in versions.values()]
        return SimpleNamespace(
            instances=lambda which: [one for one in kept if which in (None, one.state.key)], record=record
        )

    def find(_: object, __: str, version: int) -> Any:
        return versions[version][0].definition

    asked: list[str] = []
    monkeypatch.setattr(saga_requests, "Room", room)
    monkeypatch.setattr(saga_requests, "find_definition", find)
    monkeypatch.setattr(saga_requests, "_outcome_names", lambda step: [kind.__name__ for kind in step.outcomes])
    monkeypatch.setattr(saga_requests, "show_previews", lambda all_, *_, **__: asked.extend(one.key for one in all_))
    settings: Any = None
    options = Options(reply="Yes", dry_run=True, actor="ada")
    _act(settings, "s", _Asked("skip", None, options))
    assert asked == ["o-2"]
    why = "Yes is none of the records that fit here"
    assert f"left out: o-1 (key o-1): {why}" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(NotFoundError, match=why):
        _act(settings, "s", _Asked("skip", "o-1", options))


def stuck_items(answered: int) -> tuple[Saga[Opened], SagaState]:
    """Return a saga, and an instance of it with a list of two, of whose items so many were answered, the first ones."""
    made = saga("s")
    lines = named("lines", lambda event: event.lines)
    made.retriable_each(
        service, do("ship"), over=lines, limit=3, after=pivot(made), succeeds=Yes, within=seconds(10), key="ship"
    )
    talk = given(made, Opened(lines=("x", "y"))).expect_anything().when(Yes()).expect_anything()
    for number in range(answered):
        talk = talk.when(Yes(), step="ship", item=str(number))
    return made, talk.when_time_passes(days(4)).state


@pytest.mark.parametrize(("step", "item"), [("", ""), ("ship", ""), ("", "1")])
def test_the_only_item_that_is_stuck_is_found(step: str, item: str) -> None:
    """With its step named, or without; or by its own name alone."""
    made, state = stuck_items(1)
    assert [item.status in NEED_A_PERSON for item in state.step("ship").items] == [False, True]
    found = request_of(state, Action.RETRY, actor="a", reason="r", step=step, item=item)
    assert (found.step, found.item) == ("ship", "1")
    assert preview(made.definition, state, found, state.started_milliseconds + 10**9).refusal is None


def test_an_item_that_is_named_without_its_step_and_is_not_there_is_said_to_be_none() -> None:
    """With the id of the instance, and not for a step without a name."""
    _, state = stuck_items(1)
    with pytest.raises(RefusedError, match=f"no item 7 of {state.saga_id} can be asked to retry: the saga is stuck"):
        request_of(state, Action.RETRY, actor="a", reason="r", item="7")


def test_of_several_items_that_are_stuck_one_is_named_or_all_are_resumed() -> None:
    """The list itself is none of them; what is advised works."""
    made, state = stuck_items(0)
    with pytest.raises(RefusedError, match=r"2 steps of .* need a person: ship item 0, ship item 1\n") as refused:
        request_of(state, Action.RETRY, actor="a", reason="r", step="ship")
    assert "or resume, which tries them all" in (refused.value.next_step or "")
    resumed = request_of(state, Action.RESUME, actor="a", reason="r")
    seen = preview(made.definition, state, resumed, state.started_milliseconds + 10**9)
    assert seen.refusal is None and len(seen.sends) == 2  # noqa: PT018 - one promise


def test_a_definition_that_was_edited_since_is_not_guessed_by() -> None:
    """Its lines in another order are no edit."""
    made, state = stuck_items(1)
    found = request_of(state, Action.RETRY, actor="a", reason="r")
    with pytest.raises(RefusedError, match="was begun under another definition"):
        preview(chain().definition, state, found, 0)
    turned = replace(state, steps=tuple(reversed(state.steps)))
    assert preview(made.definition, turned, found, state.started_milliseconds + 10**9).refusal is None
