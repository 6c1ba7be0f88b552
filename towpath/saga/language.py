"""The language in which a saga is written: `saga = Saga(...)`, then one sentence a step.

Each method returns a handle. `needs=customer & stock` names the handles whose results a step's functions receive, after
the start event and in that order; a type checker compares them with the functions' parameters. Needing also orders;
`after=` orders without a result. A rule that a definition breaks raises DefinitionError while its module is imported.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Unpack, overload

from towpath.saga.definition import Activity, Definition, Kind, Participant, SecondStart
from towpath.saga.errors import DefinitionError
from towpath.saga.handles import (
    NO_EFFECT,
    Classes,
    ItemT,
    Needs,
    NoEffect,
    OtherT,
    ResultT,
    ResultTs,
    RetriableOptions,
    StartT,
    Step,
    StepOptions,
    Success,
    Undo,
    UndoEach,
    UndoStart,
    classes_of,
    names_of,
    tolerated_in,
)
from towpath.saga.options import judge_participant, judge_saga, judge_words
from towpath.saga.parts import StepParts
from towpath.saga.rules import Draft
from towpath.saga.spelling import spelt
from towpath.saga.subsagas import Subsagas


@spelt
class Saga(Subsagas[StartT]):
    """A saga in the making; `definition` compiles it, after which no step can be added."""

    def __init__(
        self,
        name: str,
        *,
        version: int,
        starts_on: Success[StartT],
        deadline: timedelta,
        undo: UndoStart[StartT] | None = None,
        cancel_on: Classes = (),
        second_start: SecondStart = SecondStart.REFUSE_WHILE_OPEN,
        keyed_by: Callable[[StartT], str] | None = None,
    ) -> None:
        starts, cancels = classes_of(starts_on), classes_of(cancel_on)
        said = {"version": version, "deadline": deadline, "undo": undo, "second_start": second_start}
        judge_saga(name, starts, cancels, {**said, "keyed_by": keyed_by})
        first, *others = starts
        self._draft = Draft(
            name,
            version=version,
            starts_on=first,
            deadline=deadline,
            undo=undo.parts if undo is not None else None,
            second_start=second_start,
            also_starts_on=tuple(others),
            cancels=cancels,
            keyed_by=keyed_by,
        )

    @property
    def name(self) -> str:
        """Return the saga's name."""
        return self._draft.name

    @property
    def definition(self) -> Definition:
        """Return the compiled definition, which is complete from now on. Raises DefinitionError if it has no step."""
        return self._draft.compile()

    # --- steps that can be undone -----------------------------------------------------------------------------------

    @overload
    def step(
        self,
        participant: Participant,
        command: Callable[[StartT], object],
        *,
        succeeds: Success[ResultT],
        undo: Undo[StartT] | NoEffect,
        **options: Unpack[StepOptions[StartT]],
    ) -> Step[StartT, ResultT]: ...
    @overload
    def step(
        self,
        participant: Participant,
        command: Callable[[StartT], object],
        *,
        when: Callable[[StartT], bool],
        succeeds: Success[ResultT],
        undo: Undo[StartT] | NoEffect,
        **options: Unpack[StepOptions[StartT]],
    ) -> Step[StartT, ResultT | None]: ...
    @overload
    def step(
        self,
        participant: Participant,
        command: Callable[[StartT, *ResultTs], object],
        *,
        needs: Needs[StartT, *ResultTs],
        succeeds: Success[ResultT],
        undo: Undo[StartT] | NoEffect,
        **options: Unpack[StepOptions[StartT]],
    ) -> Step[StartT, ResultT]: ...
    @overload
    def step(
        self,
        participant: Participant,
        command: Callable[[StartT, *ResultTs], object],
        *,
        needs: Needs[StartT, *ResultTs],
        when: Callable[[StartT, *ResultTs], bool],
        succeeds: Success[ResultT],
        undo: Undo[StartT] | NoEffect,
        **options: Unpack[StepOptions[StartT]],
    ) -> Step[StartT, ResultT | None]: ...
    @overload
    def step(
        self,
        participant: Participant,
        command: Callable[[StartT], object],
        *,
        instead_of: Step[StartT, OtherT],
        succeeds: Success[ResultT],
        undo: Undo[StartT] | NoEffect,
        **options: Unpack[StepOptions[StartT]],
    ) -> Step[StartT, OtherT | ResultT]: ...
    @overload
    def step(
        self,
        participant: Participant,
        command: Callable[[StartT, *ResultTs], object],
        *,
        needs: Needs[StartT, *ResultTs],
        instead_of: Step[StartT, OtherT],
        succeeds: Success[ResultT],
        undo: Undo[StartT] | NoEffect,
        **options: Unpack[StepOptions[StartT]],
    ) -> Step[StartT, OtherT | ResultT]: ...
    def step(self, participant: Participant, command: Callable[..., object], **said: Any) -> Any:
        """Declare a step that can be undone: `undo=Undo(...)`, or `undo=NO_EFFECT` where there is nothing to undo.

        With `instead_of=other` it stands in for that one: it begins only if the other is declined (a business failure,
        which then compensates nothing), and its result is that of whichever was done.
        """
        return self._command("step", Kind.COMPENSATABLE, participant, command, said)

    @overload
    def each(
        self,
        participant: Participant,
        command: Callable[[StartT, ItemT], object],
        *,
        over: Callable[[StartT], Sequence[ItemT]],
        limit: int,
        enough: int = ...,
        succeeds: Success[ResultT],
        undo: UndoEach[StartT, ItemT] | NoEffect,
        **options: Unpack[StepOptions[StartT]],
    ) -> Step[StartT, tuple[ResultT, ...]]: ...
    @overload
    def each(
        self,
        participant: Participant,
        command: Callable[[StartT, *ResultTs, ItemT], object],
        *,
        needs: Needs[StartT, *ResultTs],
        over: Callable[[StartT, *ResultTs], Sequence[ItemT]],
        limit: int,
        enough: int = ...,
        succeeds: Success[ResultT],
        undo: UndoEach[StartT, ItemT] | NoEffect,
        **options: Unpack[StepOptions[StartT]],
    ) -> Step[StartT, tuple[ResultT, ...]]: ...
    def each(self, participant: Participant, command: Callable[..., object], **said: Any) -> Any:
        """Declare one command for each item of a list of at most `limit`, side by side; the result is all replies.

        The list must depend on nothing but what the function receives. An empty one succeeds at once. With `enough=m`
        the first m successes settle it, and are the result: the others are undone while the saga goes on.
        """
        return self._command("each", Kind.COMPENSATABLE, participant, command, said)

    # --- the point of no return -------------------------------------------------------------------------------------

    @overload
    def pivot(
        self,
        participant: Participant,
        command: Callable[[StartT], object],
        *,
        succeeds: Success[ResultT],
        **options: Unpack[StepOptions[StartT]],
    ) -> Step[StartT, ResultT]: ...
    @overload
    def pivot(
        self,
        participant: Participant,
        command: Callable[[StartT, *ResultTs], object],
        *,
        needs: Needs[StartT, *ResultTs],
        succeeds: Success[ResultT],
        **options: Unpack[StepOptions[StartT]],
    ) -> Step[StartT, ResultT]: ...
    def pivot(self, participant: Participant, command: Callable[..., object], **said: Any) -> Any:
        """Declare the point of no return: sent once all before it is settled, retried until its outcome is known."""
        return self._command("pivot", Kind.PIVOT, participant, command, said)

    # --- steps past it ----------------------------------------------------------------------------------------------

    @overload
    def retriable(
        self,
        participant: Participant,
        command: Callable[[StartT], object],
        *,
        succeeds: Success[ResultT],
        **options: Unpack[RetriableOptions[StartT]],
    ) -> Step[StartT, ResultT]: ...
    @overload
    def retriable(
        self,
        participant: Participant,
        command: Callable[[StartT], object],
        *,
        when: Callable[[StartT], bool],
        succeeds: Success[ResultT],
        **options: Unpack[RetriableOptions[StartT]],
    ) -> Step[StartT, ResultT | None]: ...
    @overload
    def retriable(
        self,
        participant: Participant,
        command: Callable[[StartT, *ResultTs], object],
        *,
        needs: Needs[StartT, *ResultTs],
        succeeds: Success[ResultT],
        **options: Unpack[RetriableOptions[StartT]],
    ) -> Step[StartT, ResultT]: ...
    @overload
    def retriable(
        self,
        participant: Participant,
        command: Callable[[StartT, *ResultTs], object],
        *,
        needs: Needs[StartT, *ResultTs],
        when: Callable[[StartT, *ResultTs], bool],
        succeeds: Success[ResultT],
        **options: Unpack[RetriableOptions[StartT]],
    ) -> Step[StartT, ResultT | None]: ...
    def retriable(self, participant: Participant, command: Callable[..., object], **said: Any) -> Any:
        """Declare a step past the pivot, retried until it succeeds: it has no business failure."""
        return self._command("retriable", Kind.RETRIABLE, participant, command, said)

    @overload
    def retriable_each(
        self,
        participant: Participant,
        command: Callable[[StartT, ItemT], object],
        *,
        over: Callable[[StartT], Sequence[ItemT]],
        limit: int,
        succeeds: Success[ResultT],
        **options: Unpack[RetriableOptions[StartT]],
    ) -> Step[StartT, tuple[ResultT, ...]]: ...
    @overload
    def retriable_each(
        self,
        participant: Participant,
        command: Callable[[StartT, *ResultTs, ItemT], object],
        *,
        needs: Needs[StartT, *ResultTs],
        over: Callable[[StartT, *ResultTs], Sequence[ItemT]],
        limit: int,
        succeeds: Success[ResultT],
        **options: Unpack[RetriableOptions[StartT]],
    ) -> Step[StartT, tuple[ResultT, ...]]: ...
    def retriable_each(self, participant: Participant, command: Callable[..., object], **said: Any) -> Any:
        """Declare an `each` past the pivot."""
        return self._command("retriable_each", Kind.RETRIABLE, participant, command, said)

    # --- what all of them come to -----------------------------------------------------------------------------------

    def _command(
        self, method: str, kind: Kind, participant: Participant, command: Callable[..., object], said: dict[str, Any]
    ) -> Step[StartT, Any]:
        key = said.get("key", getattr(command, "__name__", ""))
        where = f"saga {self.name}: step {key}"
        judge_participant(where, participant, command)
        judge_words(where, method, said)
        undo = said.get("undo", NO_EFFECT)
        if kind is Kind.COMPENSATABLE and ("undo" not in said or undo is None):
            raise DefinitionError(
                f"saga {self.name}: step {key} does not say how it is undone",
                next_step="undo=Undo(...), or undo=NO_EFFECT if it changes nothing",
            )
        if not isinstance(undo, NoEffect | Undo | UndoEach):
            raise DefinitionError(
                f"{where}: undo={undo!r} says no undo", next_step="undo=Undo(the function, succeeds=...)"
            )
        return self._add(
            StepParts(
                key,
                kind,
                Activity.COMMAND,
                needs=said.get("needs"),
                after=said.get("after"),
                participant=participant,
                build=command,
                succeeds=classes_of(said["succeeds"]),
                fails=classes_of(said.get("fails", ())),
                tolerated=tolerated_in(said["succeeds"]),
                instead_of=said.get("instead_of"),
                timing={name: said[name] for name in ("within", "attempts", "retry_for", "backoff") if name in said},
                undo=None if isinstance(undo, NoEffect) else undo.parts,
                when=said.get("when"),
                over=said.get("over"),
                items_max=said.get("limit", 0),
                enough=said.get("enough", 0),
                holds=names_of(said.get("holds", ())),
                touches=names_of(said.get("touches", ())),
            )
        )
