"""What the verbs of `views` look at, which version they mean, and that waiting for one that nobody folds ends."""

import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import next_steps
from tests.next_steps import step_in
from tests.stack_fixture import ROOT
from towpath.cli import run, view_building, view_versions, views
from towpath.cli.view_building import FOLDED_SECONDS, Watched
from towpath.clock import ManualClock
from towpath.errors import NotFoundError, RefusedError
from towpath.orchestrator.sagas_view import NAME
from towpath.project import SAGAS_VIEW_WORKER, load_views, worker_names
from towpath.settings import Settings, load_settings
from towpath.stack.groups import applications
from towpath.stack.home import Home
from towpath.stack.supervisor.spec import Group, ProcessStatus, State
from towpath.stack.workers import tell_status, way_back
from towpath.stream.engine.worker_status import WorkerStatus
from towpath.view.postgres import TableGone
from towpath.view.versions.standing import DECLARED_IN, Version


class Folders:
    """How many workers the version has, whenever it is looked at."""

    def __init__(self, *workers: int) -> None:
        self.left = list(workers)

    def version_of(self, _: Settings, name: str, number: int) -> Version:
        """Return the version with the next number of workers."""
        return Version(name, number, True, True, False, workers=self.left.pop(0))


def looked(monkeypatch: pytest.MonkeyPatch, *workers: int) -> None:
    """Wait half a second at a time, until the version has been looked at so often."""
    folders, clock = Folders(*workers), ManualClock()
    monkeypatch.setattr(view_building, "version_of", folders.version_of)
    watched = Watched(load_settings(), "customers", 2, clock)
    while folders.left:
        watched.look()
        clock.sleep(0.5)


def test_a_version_without_a_worker_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what folds it."""
    with pytest.raises(RefusedError, match="nobody folds version 2") as refused:
        looked(monkeypatch, 1, 0, 0, 0)
    assert refused.value.next_step == "towpath views build customers --version 2, then promote it again"


def test_a_worker_that_restarts_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is gone at one look, and back at the next, which is not at once."""
    looked(monkeypatch, 0, 1, 0, 2, 1)
    assert FOLDED_SECONDS >= 10


@pytest.mark.parametrize(("workers", "refused"), [((1,), False), ((0, 1), False), ((0, 0), True)])
def test_a_rehearsal_gives_up_what_the_run_would_give_up(
    monkeypatch: pytest.MonkeyPatch, workers: tuple[int, ...], refused: bool
) -> None:
    """After as many looks, as far apart; where somebody folds the version it waits for nothing."""
    folders, clock = Folders(*workers), ManualClock()
    monkeypatch.setattr(view_building, "version_of", folders.version_of)
    began = clock.monotonic_seconds()
    with pytest.raises(RefusedError, match="nobody folds") if refused else nullcontext():
        Watched(load_settings(), "customers", 2, clock).rehearse()
    assert (folders.left, clock.monotonic_seconds() - began) == ([], FOLDED_SECONDS * (len(workers) - 1))


def test_who_waits_for_a_version_that_left_the_project_is_not_told_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """That would be refused: it is to be declared again."""
    gone = Version("customers", 2, False, True, False)
    monkeypatch.setattr(view_building, "version_of", lambda *_: gone)
    with pytest.raises(RefusedError, match="nobody folds") as refused:
        Watched(load_settings(), "customers", 2, ManualClock()).rehearse()
    assert DECLARED_IN in (refused.value.next_step or "")
    assert "views build" not in (refused.value.next_step or "")


def two_built(monkeypatch: pytest.MonkeyPatch, published: int, *declared: int) -> list[dict[str, Any]]:
    """Have versions 1 and 2 built; return what is told of what would be done."""
    found = [Version("orders", number, number in declared, True, number == published) for number in (1, 2)]
    for module in (views, view_versions):
        monkeypatch.setattr(module, "versions_of", lambda *_: found)
        monkeypatch.setattr(module, "published_of", lambda *_: published)
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(views, "show_done", lambda done, **_: told.append(done))
    # What a dry run asks the database, and rolls back: tests/integration/view/test_versions.py.
    monkeypatch.setattr(views, "broker_of", lambda *_: None)
    monkeypatch.setattr("towpath.view.versions.log.bounds_of", lambda *_: SimpleNamespace(ends={}, begins={}))
    database = nullcontext(SimpleNamespace(transaction=lambda **_: nullcontext(), execute=lambda *_: None))
    for name, found_there in {
        "views_connection": database,
        "swap": None,
        "lock_version": True,
        "lock_view": None,
        "published_version": published,
        "built_versions": [1, 2],
    }.items():
        monkeypatch.setattr(f"towpath.view.versions.postgres.{name}", lambda *_, found=found_there, **__: found)
    return told


@pytest.mark.parametrize(
    ("declared", "published", "version", "refused"),
    [
        ((1, 2), 1, 2, None),
        ((1, 2), 2, 2, RefusedError),  # the same command again must not give readers the older one
        ((1,), 2, 1, None),  # the project went back
        ((), 2, None, NotFoundError),
    ],
)
def test_what_is_promoted_by_default_is_the_newest_version_of_the_project(
    monkeypatch: pytest.MonkeyPatch,
    declared: tuple[int, ...],
    published: int,
    version: int | None,
    refused: type[Exception] | None,
) -> None:
    """Where readers see that one already there is nothing to do, whichever others are built."""
    told = two_built(monkeypatch, published, *declared)
    with nullcontext() if refused is None else pytest.raises(refused):
        views.promote("orders", "release 7", dry_run=True)
    assert [one["version_after"] for one in told] == ([] if refused else [version])


def as_printed(text: str) -> None:
    """Run the promotion that a text advises, without doing it."""
    (command,) = re.findall(r"towpath views promote [^;]*", text)
    words = shlex.split(command)
    version = int(words[words.index("--version") + 1]) if "--version" in words else None
    views.promote(words[3], "release 7", version=version, dry_run=True)


def test_who_would_drop_the_version_that_readers_see_is_told_which_to_promote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is the newest, which a promotion without a version means."""
    told = two_built(monkeypatch, 2, 1, 2)
    with pytest.raises(RefusedError, match="is the one that readers see") as refused:
        views.drop("orders", "a reason", version=2, dry_run=True)
    as_printed(refused.value.next_step or "")
    assert told[-1]["version_after"] == 1


@pytest.mark.parametrize("published", [1, 2])
def test_who_has_built_an_older_version_is_told_how_to_publish_that_one(
    monkeypatch: pytest.MonkeyPatch, published: int
) -> None:
    """Not the newest of the project; and nothing where readers see it already."""
    told, notes = two_built(monkeypatch, published, 1, 2), list[str]()
    monkeypatch.setattr("towpath.cli.output.note", notes.append)
    view = SimpleNamespace(name="orders", version=1, topics=(), forgets=False)
    monkeypatch.setattr(views, "declared_view", lambda *_: view)
    monkeypatch.setattr(views, "watch_workers", lambda *_: True)
    views.build("orders", version=1)
    if published == 1:
        assert notes == []
        return
    as_printed(notes[-1])
    assert told[-1]["version_after"] == 1


@pytest.mark.parametrize("others", [True, False])
def test_a_published_version_that_left_the_project_is_replaced_where_the_project_has_another(others: bool) -> None:
    """Where it has none, a promotion would be refused: the version is to be declared again."""
    advice = Version("orders", 2, False, True, True, others_declared=others).advice or ""
    assert "its rows stand still" in advice
    assert ("towpath views promote" in advice, DECLARED_IN in advice) == (others, not others)


def test_who_is_to_change_the_projects_views_is_told_both_ways_to_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new project lists none: they are its modules in pipelines/views."""
    assert "pipelines/views" in DECLARED_IN
    assert "[project] views" in DECLARED_IN
    found = [Version("orders", 1, True, True, False, workers=1)]
    monkeypatch.setattr(view_versions, "versions_of", lambda *_: found)
    with pytest.raises(RefusedError) as dropped:
        views.drop("orders", "a reason", version=1)
    with pytest.raises(NotFoundError) as compared:
        view_versions.newest_of(load_settings(), "orders", 1)
    gone = TableGone(load_views(load_settings(environment=False))["order_status"][1])
    for error in (dropped.value, compared.value, gone):
        assert DECLARED_IN in (error.next_step or "")


def test_a_project_without_sagas_has_its_views_and_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """`views list`, `status`, `run` and the plan of a replay begin with these; the engine's own view folds nothing."""
    for module in ("towpath.project", "towpath.stack.groups"):
        monkeypatch.setattr(f"{module}.load_sagas", lambda _: {})
    settings = load_settings(environment=False)
    assert "order_status" in view_versions.declared_views(settings)
    assert SAGAS_VIEW_WORKER not in worker_names(settings)
    assert not any(one.worker == SAGAS_VIEW_WORKER for one in applications(settings).values())
    with pytest.raises(NotFoundError, match="has no view:sagas"):
        run._view_and_siblings(settings, "sagas")


VERSIONS = [f"tests.integration.stack.customers:{name}" for name in ("first", "second")]


class Stack:
    """A stack with some workers, beside versions 1 and 2 of customers, both built and read to their ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self.members: dict[str, int] = {}
        self.published = 1
        self.built = [1, 2]
        self.statuses: dict[str, ProcessStatus] = {}
        self.done: list[tuple[str, ...]] = []
        self._monkeypatch = monkeypatch
        self.has(*VERSIONS)
        monkeypatch.setenv("TOWPATH_STACK__HOME", str(home))
        Home(home).make()
        broker = SimpleNamespace(
            group_members=lambda group: [SimpleNamespace(client_id="")] * self.members.get(group, 0)
        )
        for module in (views, view_versions):
            monkeypatch.setattr(module, "broker_of", lambda _: broker)
        monkeypatch.setattr("towpath.view.versions.log.bounds_of", lambda *_: SimpleNamespace(ends={}, begins={}))
        monkeypatch.setattr("towpath.view.versions.log.ends_of_records", lambda *_: {})
        database = nullcontext(SimpleNamespace(transaction=self.transaction, execute=lambda *_: None))
        answers: dict[str, Any] = {
            "views_connection": lambda _: database,
            "built_versions": lambda *_: self.built,
            "published_version": lambda *_: self.published,
            "vector_of_version": lambda *_: {},
            "count_rows": lambda *_: 7,
            "swap": self.swap,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(f"towpath.view.versions.postgres.{name}", answer)
        monkeypatch.setattr("towpath.stack.client.running", lambda _: self.statuses)
        monkeypatch.setattr("towpath.stack.client.StackClient", lambda _: nullcontext(self))
        monkeypatch.setattr("towpath.stack.up.down", lambda _: self.done.append(("down",)))
        monkeypatch.setattr("towpath.stack.up.up", lambda *_, **__: ())
        monkeypatch.setattr("towpath.cli.stack._rows", lambda _: [])
        monkeypatch.setattr("towpath.cli.stack._start_workers", self.start_all)
        monkeypatch.setattr(run, "_run_worker", lambda _, name, __: self.done.append(("run", name)))

    def has(self, *versions: str) -> None:
        """Let these be the project's."""
        self._monkeypatch.setenv("TOWPATH_PROJECT__VIEWS", json.dumps(versions))

    @contextmanager
    def transaction(self, *, force_rollback: bool) -> Iterator[None]:
        """Take back at its end what readers see, where it is a rehearsal."""
        before = self.published
        yield
        self.published = before if force_rollback else self.published

    def swap(self, _: Any, __: str, decision: Any, **___: Any) -> None:
        """Let readers see another version."""
        self.published = decision.version_after

    def start_all(self, settings: Settings) -> tuple[str, ...]:
        """Start the project's workers."""
        self.done.append(worker_names(settings))
        return ()

    def restart(self, name: str) -> None:
        """Take it down."""
        self.done.append(("restart", name))

    def wait_ready(self, *_: Any) -> None:
        """It is."""

    def process(
        self, name: str, version: int | None = None, state: State = State.READY, *, view: str = "customers"
    ) -> None:
        """Have a process, which says that it folds a version."""
        self.statuses[name] = ProcessStatus(name, Group.WORKER, state, "1", (), "log", os.getpid(), 1.0, 1, None)
        if version is not None:
            settings = load_settings(ROOT)
            group = f"{settings.project.name}-view-{view}-v{version}"
            self.members[group] = 1
            told = WorkerStatus(application=group, slot="1", is_member=True)
            tell_status(Home(settings.stack_home).ready_file(name), told)


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stack:
    """Return a stack that runs no worker."""
    return Stack(monkeypatch, tmp_path)


def test_who_publishes_a_version_that_nobody_folds_is_told_what_starts_its_worker(stack: Stack) -> None:
    """As `status` and `doctor` tell it, and none a build, which ends; readers would be stale from then on."""
    promote = ("views", "promote", "customers", "--version", "2", "--reason", "t", "--yes")
    for words in ((*promote, "--dry-run"), promote, ("views", "status", "customers")):
        said = next_steps.run(ROOT, *words).leads_on()
        assert (said.code, "version 2 has no worker" in said.text) == (0, True), said.text
        assert "views build" not in said.text
        assert next_steps.run(ROOT, *step_in(said.text, "run x")).code == 0
    assert stack.done == [("run", "view:customers@2")] * 3
    settings = load_settings(ROOT)
    assert run._view_and_siblings(settings, "customers@2")[0].version == 2
    worker = applications(settings)[f"{settings.project.name}-view-customers-v2"].worker
    assert way_back(worker, {}) == "towpath run view:customers@2"


def test_how_many_fold_what_is_published_is_told_to_programs_too(stack: Stack) -> None:
    """In the JSON of a promotion and of its dry run; with a worker nothing is to be done."""
    promote = ("views", "promote", "customers", "--version", "2", "--reason", "t", "--yes", "--json")
    said = next_steps.run(ROOT, *promote, "--dry-run").text
    assert ('"workers": 0' in said, "has no worker" in said) == (True, True)
    stack.process("view:customers@2", 2)
    said = next_steps.run(ROOT, *promote).text
    assert ('"workers": 1' in said, "has no worker" in said) == (True, False)


def test_a_published_version_whose_process_has_left_its_group_is_restarted(stack: Stack) -> None:
    """Another one beside it would have its slot."""
    stack.process("view:customers@2")
    said = next_steps.run(ROOT, "views", "promote", "customers", "--version", "2", "--reason", "t", "--yes")
    assert next_steps.run(ROOT, *step_in(said.text, "restart x")).code == 0
    assert stack.done == [("restart", "view:customers@2")]


def refused_drop(version: int, *, view: str = "customers", because: str = "built anew") -> str:
    """Return what is said of a version that is not dropped, for its worker or for what else is named."""
    drop = ("views", "drop", view, "--version", str(version), "--reason", "t", "--yes")
    said = next_steps.run(ROOT, *drop).leads_on()
    assert (said.code, because in said.text) == (6, True), said.text
    return said.text


@pytest.mark.parametrize("declared", [True, False])
def test_who_drops_a_version_that_the_stack_folds_restarts_the_process_as_printed(stack: Stack, declared: bool) -> None:
    """It is the worker of the next version then: also where the old one has left the project already."""
    stack.published = 2
    stack.process("view:customers", 1)
    if not declared:
        stack.has(VERSIONS[1])
    told = refused_drop(1)
    assert (f"take it out of {DECLARED_IN}" in told) == declared
    stack.has(VERSIONS[1])
    assert next_steps.run(ROOT, *step_in(told, "restart x")).code == 0
    assert stack.done == [("restart", "view:customers")]
    assert run._view_and_siblings(load_settings(ROOT), "customers")[0].version == 2


@pytest.mark.parametrize(("dropped", "left"), [(1, 2), (2, 1)])
def test_where_both_versions_have_processes_the_stacks_workers_begin_anew_as_printed(
    stack: Stack, dropped: int, left: int
) -> None:
    """A restarted one would have the other's slot, or a name that the project no longer has."""
    stack.published = left
    stack.process("view:customers", 1)
    stack.process("view:customers@2", 2)
    told = refused_drop(dropped)
    stack.has(VERSIONS[left - 1])
    assert next_steps.run(ROOT, *step_in(told, "down")).code == 0
    assert next_steps.run(ROOT, *step_in(told, "up --workers")).code == 0
    (down, started) = stack.done
    assert (down, [name for name in started if "customers" in name]) == (("down",), ["view:customers"])


def test_workers_that_no_stack_has_are_stopped_where_they_run(stack: Stack) -> None:
    """Here nothing is known of them but that they are."""
    stack.published = 2
    stack.members[f"{load_settings(ROOT).project.name}-view-customers-v1"] = 1
    assert "stop its workers where they run (SIGTERM), then drop it" in refused_drop(1)


@pytest.mark.parametrize(("published", "other"), [(1, 2), (2, 1)])
def test_the_worker_of_the_version_that_readers_see_is_not_ended_for_a_drop(
    stack: Stack, published: int, other: int
) -> None:
    """Nobody would fold it then, and the drop would be refused all the same: another one is promoted first."""
    stack.published = published
    stack.process("view:customers", 1)
    stack.process("view:customers@2", 2)
    told = refused_drop(published, because="readers see")
    assert DECLARED_IN not in told
    assert next_steps.run(ROOT, *step_in(told, "views promote x --version x --reason REASON"), "--yes").code == 0
    assert stack.published == other
    assert DECLARED_IN in refused_drop(published)


def test_who_drops_the_engines_own_view_ends_its_worker_without_a_file_of_the_project(stack: Stack) -> None:
    """No file of the project has it, so it is neither taken out there nor declared with a higher version."""
    stack.built = [4]
    stack.published = 4
    stack.process(SAGAS_VIEW_WORKER, 4, view=NAME)
    told = refused_drop(4, view=NAME, because="readers see")
    assert (f"DROP VIEW {NAME}" in told, "declare" in told) == (True, False)
    stack.published = 0
    told = refused_drop(4, view=NAME)
    assert DECLARED_IN not in told
    assert next_steps.run(ROOT, *step_in(told, "down")).code == 0
    assert next_steps.run(ROOT, *step_in(told, "up")).code == 0
    assert stack.done == [("down",)]
