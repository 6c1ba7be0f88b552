"""What a saga says of its own course: waits and delays, choices between branches, events, and its result.

Rule of this file: nothing here asks a participant to do anything. Steps that do are declared in language.py.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, Unpack, overload

from towpath.saga.definition import Activity, GatherDefinition, OnTimeout, SecondStart
from towpath.saga.errors import DefinitionError
from towpath.saga.handles import (
    AnyNeeds,
    Classes,
    GatherOptions,
    ItemT,
    Needs,
    OtherT,
    Prolong,
    Remind,
    ResultT,
    ResultTs,
    StartT,
    Step,
    Success,
    ThirdT,
    classes_of,
    tolerated_in,
)
from towpath.saga.options import judge_builder, judge_words
from towpath.saga.parts import StepParts
from towpath.saga.rules import Draft
from towpath.saga.spelling import spelt


@spelt
class Course(Generic[StartT]):
    """The sentences of a saga that concern no participant."""

    _draft: Draft

    # --- waits and delays -------------------------------------------------------------------------------------------

    @overload
    def wait(
        self,
        key: str,
        *,
        succeeds: Success[ResultT],
        fails: Classes = (),
        within: timedelta,
        on_timeout: Literal[OnTimeout.COMPENSATE, OnTimeout.HALT],
        needs: AnyNeeds[StartT] | None = None,
        after: AnyNeeds[StartT] | None = None,
        reminds: Remind | None = None,
        prolonged: Prolong | None = None,
    ) -> Step[StartT, ResultT]: ...
    @overload
    def wait(
        self,
        key: str,
        *,
        succeeds: Success[ResultT],
        fails: Classes = (),
        within: timedelta,
        on_timeout: Literal[OnTimeout.PROCEED],
        needs: AnyNeeds[StartT] | None = None,
        after: AnyNeeds[StartT] | None = None,
        reminds: Remind | None = None,
        prolonged: Prolong | None = None,
    ) -> Step[StartT, ResultT | None]: ...
    @overload
    def wait(
        self,
        key: str,
        *,
        when: Callable[[StartT], bool],
        succeeds: Success[ResultT],
        fails: Classes = (),
        within: timedelta,
        on_timeout: OnTimeout,
        after: AnyNeeds[StartT] | None = None,
        reminds: Remind | None = None,
        prolonged: Prolong | None = None,
    ) -> Step[StartT, ResultT | None]: ...
    @overload
    def wait(
        self,
        key: str,
        *,
        needs: Needs[StartT, *ResultTs],
        when: Callable[[StartT, *ResultTs], bool],
        succeeds: Success[ResultT],
        fails: Classes = (),
        within: timedelta,
        on_timeout: OnTimeout,
        after: AnyNeeds[StartT] | None = None,
        reminds: Remind | None = None,
        prolonged: Prolong | None = None,
    ) -> Step[StartT, ResultT | None]: ...
    def wait(self, key: str, **said: Any) -> Any:
        """Declare a wait for an event or a person's decision, and what it means that none comes in time."""
        judge_words(self._where(key), "wait", said)
        return self._add(
            StepParts(
                key,
                self._draft.region(),
                Activity.WAIT,
                needs=said.get("needs"),
                after=said.get("after"),
                succeeds=classes_of(said["succeeds"]),
                fails=classes_of(said.get("fails", ())),
                when=said.get("when"),
                tolerated=tolerated_in(said["succeeds"]),
                on_timeout=said["on_timeout"],
                wait=said["within"],
                remind=said["reminds"].parts if said.get("reminds") is not None else None,
                prolong=said["prolonged"].parts if said.get("prolonged") is not None else None,
            )
        )

    @overload
    def gather(
        self,
        key: str,
        *,
        of: Success[ItemT],
        into: type[ResultT],
        by: Callable[[StartT, ResultT | None, ItemT], ResultT],
        enough: Callable[[StartT, ResultT], bool],
        on_timeout: Literal[OnTimeout.COMPENSATE, OnTimeout.HALT],
        **options: Unpack[GatherOptions[StartT]],
    ) -> Step[StartT, ResultT]: ...
    @overload
    def gather(
        self,
        key: str,
        *,
        of: Success[ItemT],
        into: type[ResultT],
        by: Callable[[StartT, ResultT | None, ItemT | OtherT], ResultT],
        ended_by: Success[OtherT],
        enough: Callable[[StartT, ResultT], bool] = ...,
        on_timeout: Literal[OnTimeout.COMPENSATE, OnTimeout.HALT],
        **options: Unpack[GatherOptions[StartT]],
    ) -> Step[StartT, ResultT]: ...
    @overload
    def gather(
        self,
        key: str,
        *,
        of: Success[ItemT],
        into: type[ResultT],
        by: Callable[[StartT, ResultT | None, ItemT], ResultT],
        enough: Callable[[StartT, ResultT], bool] = ...,
        on_timeout: Literal[OnTimeout.PROCEED],
        **options: Unpack[GatherOptions[StartT]],
    ) -> Step[StartT, ResultT | None]: ...
    @overload
    def gather(
        self,
        key: str,
        *,
        of: Success[ItemT],
        into: type[ResultT],
        by: Callable[[StartT, ResultT | None, ItemT | OtherT], ResultT],
        ended_by: Success[OtherT],
        enough: Callable[[StartT, ResultT], bool] = ...,
        on_timeout: Literal[OnTimeout.PROCEED],
        **options: Unpack[GatherOptions[StartT]],
    ) -> Step[StartT, ResultT | None]: ...
    def gather(self, key: str, **said: Any) -> Any:
        """Declare a wait that gathers signals, at most `limit`, into one record, which is its result.

        `by` receives the start event, the record so far (None at first) and the signal, and returns the record with it.
        It is over when `enough` says so, when `ended_by` comes (gathered as the last), or when its time is; on PROCEED
        with what has come. What `fails` names turns the saga round.
        """
        judge_words(self._where(key), "gather", said)
        gathered = GatherDefinition(classes_of(said["of"]), said["into"], said["by"], said["limit"], said.get("enough"))
        return self._add(
            StepParts(
                key,
                self._draft.region(),
                Activity.WAIT,
                after=said.get("after"),
                succeeds=classes_of(said.get("ended_by", ())),
                fails=classes_of(said.get("fails", ())),
                on_timeout=said["on_timeout"],
                wait=said["within"],
                remind=said["reminds"].parts if said.get("reminds") is not None else None,
                gather=gathered,
            )
        )

    @overload
    def delay(self, key: str, *, lasts: timedelta, after: AnyNeeds[StartT] | None = None) -> Step[StartT, None]: ...
    @overload
    def delay(
        self,
        key: str,
        *,
        until: Callable[[StartT], datetime],
        at_most: timedelta,
        after: AnyNeeds[StartT] | None = None,
    ) -> Step[StartT, None]: ...
    @overload
    def delay(
        self,
        key: str,
        *,
        needs: Needs[StartT, *ResultTs],
        until: Callable[[StartT, *ResultTs], datetime],
        at_most: timedelta,
        after: AnyNeeds[StartT] | None = None,
    ) -> Step[StartT, None]: ...
    def delay(self, key: str, **said: Any) -> Any:
        """Declare a pause that lasts so long, or until a time that a function reads from the data (with its zone).

        Steps that name it in `after` begin when it is over. A time that is further away than `at_most` compensates,
        and past the pivot halts; one that has passed is no pause.
        """
        judge_words(self._where(key), "delay", said)
        return self._add(
            StepParts(
                key,
                self._draft.region(),
                Activity.DELAY,
                needs=said.get("needs"),
                after=said.get("after"),
                until=said.get("until"),
                wait=said["lasts"] if "lasts" in said else said["at_most"],
            )
        )

    # --- branches ---------------------------------------------------------------------------------------------------

    @overload
    def choose(
        self,
        key: str,
        *,
        by: Callable[[StartT], str],
        options: Sequence[str],
        after: AnyNeeds[StartT] | None = None,
    ) -> tuple[Step[StartT, None], ...]: ...
    @overload
    def choose(
        self,
        key: str,
        *,
        needs: Needs[StartT, *ResultTs],
        by: Callable[[StartT, *ResultTs], str],
        options: Sequence[str],
        after: AnyNeeds[StartT] | None = None,
    ) -> tuple[Step[StartT, None], ...]: ...
    def choose(self, key: str, **said: Any) -> Any:
        """Declare a choice between branches: its function returns one of `options`. Returns a handle for each.

        What comes `after` such a handle lies in that branch, and begins only if it is taken; `merge` joins them again.
        """
        judge_words(self._where(key), "choose", said)
        options, kind = tuple(said["options"]), self._draft.region()
        self._add(
            StepParts(
                key,
                kind,
                Activity.CHOICE,
                needs=said.get("needs"),
                after=said.get("after"),
                build=said["by"],
                options=options,
            )
        )
        choice = Needs[StartT](self._draft, (len(self._draft.steps) - 1,))
        return tuple(self._add(StepParts(option, kind, Activity.BRANCH, after=choice)) for option in options)

    @overload
    def merge(
        self,
        key: str,
        first: Step[StartT, ResultT],
        second: Step[StartT, OtherT],
        /,
        *,
        after: AnyNeeds[StartT] | None = None,
    ) -> Step[StartT, ResultT | OtherT]: ...
    @overload
    def merge(
        self,
        key: str,
        first: Step[StartT, ResultT],
        second: Step[StartT, OtherT],
        third: Step[StartT, ThirdT],
        /,
        *more: Step[StartT, ThirdT],
        after: AnyNeeds[StartT] | None = None,
    ) -> Step[StartT, ResultT | OtherT | ThirdT]: ...
    def merge(self, key: str, *branches: Any, after: Any = None) -> Any:
        """Join the branches of a choice, by the last step of each, or the branch itself where nothing lies in it.

        Exactly one of them was taken, and the result is that of its step.
        """
        for branch in branches:
            if not hasattr(branch, "positions"):
                raise DefinitionError(
                    f"{self._where(key)}: it joins {branch!r}, which is no handle",
                    next_step=f'name the last step of each branch: saga.merge("{key}", first, second)',
                )
        positions = tuple(position for branch in branches for position in self._draft.positions_of(key, branch))
        joined: Needs[Any] = Needs(self._draft, positions)
        return self._add(StepParts(key, self._draft.region(), Activity.MERGE, needs=joined, after=after))

    # --- events and the result --------------------------------------------------------------------------------------

    @overload
    def publish(
        self,
        build: Callable[[StartT], ResultT],
        *,
        event: type[ResultT],
        key: str = "",
        after: AnyNeeds[StartT] | None = None,
    ) -> Step[StartT, ResultT]: ...
    @overload
    def publish(
        self,
        build: Callable[[StartT, *ResultTs], ResultT],
        *,
        needs: Needs[StartT, *ResultTs],
        event: type[ResultT],
        key: str = "",
        after: AnyNeeds[StartT] | None = None,
    ) -> Step[StartT, ResultT]: ...
    def publish(self, build: Callable[..., object], **said: Any) -> Any:
        """Declare an event that the saga publishes in its own topic of events; nobody answers, nothing is awaited."""
        key = str(said.get("key") or getattr(build, "__name__", ""))
        judge_words(self._where(key), "publish", said)
        return self._event(key, Activity.EVENT, build, said)

    @overload
    def result(self, build: Callable[[StartT], ResultT], *, event: type[ResultT]) -> None: ...
    @overload
    def result(
        self,
        build: Callable[[StartT, *ResultTs], ResultT],
        *,
        needs: Needs[StartT, *ResultTs],
        event: type[ResultT],
    ) -> None: ...
    def result(self, build: Callable[..., object], **said: Any) -> None:
        """Declare what the saga comes to if it completes: the last that is declared.

        It is published as an event, told to a saga that started this one, and known to clients that await the ending.
        """
        judge_words(self._where("result"), "result", said)
        self._event("result", Activity.RESULT, build, said)

    @overload
    def then_starts(self, build: Callable[[StartT], StartT | None]) -> None: ...
    @overload
    def then_starts(
        self, build: Callable[[StartT, *ResultTs], StartT | None], *, needs: Needs[StartT, *ResultTs]
    ) -> None: ...
    def then_starts(self, build: Callable[..., object], **said: Any) -> None:
        """Declare what starts the next instance of this saga once this one has completed; None ends the chain.

        The very last that is declared. Each instance is a saga of its own, with its own deadline, history and proof.
        """
        judge_words(self._where("next"), "then_starts", said)
        judge_builder(self._where("next"), build)
        if self._draft.second_start is SecondStart.REFUSE_ALWAYS:
            raise DefinitionError(
                f"{self._where('next')} starts a second instance for a key, and second_start is REFUSE_ALWAYS",
                next_step="let second_start be REFUSE_WHILE_OPEN, or leave then_starts out",
            )
        starts = (self._draft.starts_on, *self._draft.also_starts_on)
        self._add(
            StepParts(
                "next", self._draft.region(), Activity.NEXT, needs=said.get("needs"), build=build, succeeds=starts
            )
        )

    def _where(self, key: str) -> str:
        return f"saga {self._draft.name}: step {key}"

    def _event(self, key: str, activity: Activity, build: Callable[..., object], said: dict[str, Any]) -> Any:
        judge_builder(self._where(key), build)
        return self._add(
            StepParts(
                key,
                self._draft.region(),
                activity,
                needs=said.get("needs"),
                after=said.get("after"),
                build=build,
                succeeds=(said["event"],),
            )
        )

    def _add(self, parts: StepParts) -> Step[StartT, Any]:
        return Step(self._draft, (self._draft.add(parts),))
