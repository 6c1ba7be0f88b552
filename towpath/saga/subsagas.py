"""Sub-sagas: another saga as a step, or one for each item of a list.

Rule of this file: what a sub-saga does is its own definition's affair; here it is started, awaited and asked back.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, Required, TypedDict, TypeVar, Unpack, overload

from towpath.saga.course import Course
from towpath.saga.definition import Activity, Definition, Kind
from towpath.saga.effects import SubsagaCompensated, SubsagaCompleted
from towpath.saga.errors import DefinitionError
from towpath.saga.handles import AnyNeeds, ItemT, Needs, OtherT, ResultTs, StartT, Step
from towpath.saga.options import judge_builder, judge_words
from towpath.saga.parts import StepParts, UndoSubsaga
from towpath.saga.spelling import spelt

if TYPE_CHECKING:
    from towpath.saga.language import Saga

ChildStartT = TypeVar("ChildStartT")


class SubsagaOptions(TypedDict, Generic[StartT], total=False):
    """What any sub-saga may say: `within` is how long it may take, `undo` how long it may take to undo itself."""

    within: Required[timedelta]
    undo: UndoSubsaga
    key: str
    after: AnyNeeds[StartT]


@spelt
class Subsagas(Course[StartT]):
    """The sentences of a saga that start others."""

    @overload
    def subsaga(
        self,
        child: "Saga[ChildStartT]",
        start: Callable[[StartT], ChildStartT],
        *,
        keyed_by: Callable[[StartT], str] = ...,
        **options: Unpack[SubsagaOptions[StartT]],
    ) -> Step[StartT, SubsagaCompleted[object]]: ...
    @overload
    def subsaga(
        self,
        child: "Saga[ChildStartT]",
        start: Callable[[StartT, *ResultTs], ChildStartT],
        *,
        needs: Needs[StartT, *ResultTs],
        keyed_by: Callable[[StartT, *ResultTs], str] = ...,
        **options: Unpack[SubsagaOptions[StartT]],
    ) -> Step[StartT, SubsagaCompleted[object]]: ...
    @overload
    def subsaga(
        self,
        child: "Saga[ChildStartT]",
        start: Callable[[StartT], ChildStartT],
        *,
        returns: type[OtherT],
        keyed_by: Callable[[StartT], str] = ...,
        **options: Unpack[SubsagaOptions[StartT]],
    ) -> Step[StartT, SubsagaCompleted[OtherT]]: ...
    @overload
    def subsaga(
        self,
        child: "Saga[ChildStartT]",
        start: Callable[[StartT, *ResultTs], ChildStartT],
        *,
        needs: Needs[StartT, *ResultTs],
        returns: type[OtherT],
        keyed_by: Callable[[StartT, *ResultTs], str] = ...,
        **options: Unpack[SubsagaOptions[StartT]],
    ) -> Step[StartT, SubsagaCompleted[OtherT]]: ...
    def subsaga(self, child: "Saga[Any]", start: Callable[..., object], **said: Any) -> Any:
        """Declare another saga as a step: started with what `start` returns, awaited, undone with this one.

        Its kind follows from the child: one with a pivot is this saga's pivot, one of retriable steps alone is
        retriable, any other can be undone even after it has completed. `returns` names the class of the child's result.
        It has this saga's business key, or the one that `keyed_by` gives it.
        """
        return self._subsaga("subsaga", child, start, said)

    @overload
    def subsaga_each(
        self,
        child: "Saga[ChildStartT]",
        start: Callable[[StartT, ItemT], ChildStartT],
        *,
        over: Callable[[StartT], Sequence[ItemT]],
        limit: int,
        keyed_by: Callable[[StartT, ItemT], str] = ...,
        **options: Unpack[SubsagaOptions[StartT]],
    ) -> Step[StartT, tuple[SubsagaCompleted[object], ...]]: ...
    @overload
    def subsaga_each(
        self,
        child: "Saga[ChildStartT]",
        start: Callable[[StartT, *ResultTs, ItemT], ChildStartT],
        *,
        needs: Needs[StartT, *ResultTs],
        over: Callable[[StartT, *ResultTs], Sequence[ItemT]],
        limit: int,
        keyed_by: Callable[[StartT, *ResultTs, ItemT], str] = ...,
        **options: Unpack[SubsagaOptions[StartT]],
    ) -> Step[StartT, tuple[SubsagaCompleted[object], ...]]: ...
    @overload
    def subsaga_each(
        self,
        child: "Saga[ChildStartT]",
        start: Callable[[StartT, ItemT], ChildStartT],
        *,
        over: Callable[[StartT], Sequence[ItemT]],
        limit: int,
        returns: type[OtherT],
        keyed_by: Callable[[StartT, ItemT], str] = ...,
        **options: Unpack[SubsagaOptions[StartT]],
    ) -> Step[StartT, tuple[SubsagaCompleted[OtherT], ...]]: ...
    @overload
    def subsaga_each(
        self,
        child: "Saga[ChildStartT]",
        start: Callable[[StartT, *ResultTs, ItemT], ChildStartT],
        *,
        needs: Needs[StartT, *ResultTs],
        over: Callable[[StartT, *ResultTs], Sequence[ItemT]],
        limit: int,
        returns: type[OtherT],
        keyed_by: Callable[[StartT, *ResultTs, ItemT], str] = ...,
        **options: Unpack[SubsagaOptions[StartT]],
    ) -> Step[StartT, tuple[SubsagaCompleted[OtherT], ...]]: ...
    @overload
    def subsaga_each(
        self,
        child: "Saga[ChildStartT]",
        start: Callable[[StartT, ItemT], ChildStartT],
        *,
        over: Callable[[StartT], Sequence[ItemT]],
        limit: int,
        may_fail: Literal[True],
        keyed_by: Callable[[StartT, ItemT], str] = ...,
        **options: Unpack[SubsagaOptions[StartT]],
    ) -> Step[StartT, tuple[SubsagaCompleted[object] | SubsagaCompensated, ...]]: ...
    @overload
    def subsaga_each(
        self,
        child: "Saga[ChildStartT]",
        start: Callable[[StartT, *ResultTs, ItemT], ChildStartT],
        *,
        needs: Needs[StartT, *ResultTs],
        over: Callable[[StartT, *ResultTs], Sequence[ItemT]],
        limit: int,
        may_fail: Literal[True],
        keyed_by: Callable[[StartT, *ResultTs, ItemT], str] = ...,
        **options: Unpack[SubsagaOptions[StartT]],
    ) -> Step[StartT, tuple[SubsagaCompleted[object] | SubsagaCompensated, ...]]: ...
    @overload
    def subsaga_each(
        self,
        child: "Saga[ChildStartT]",
        start: Callable[[StartT, ItemT], ChildStartT],
        *,
        over: Callable[[StartT], Sequence[ItemT]],
        limit: int,
        may_fail: Literal[True],
        returns: type[OtherT],
        keyed_by: Callable[[StartT, ItemT], str] = ...,
        **options: Unpack[SubsagaOptions[StartT]],
    ) -> Step[StartT, tuple[SubsagaCompleted[OtherT] | SubsagaCompensated, ...]]: ...
    @overload
    def subsaga_each(
        self,
        child: "Saga[ChildStartT]",
        start: Callable[[StartT, *ResultTs, ItemT], ChildStartT],
        *,
        needs: Needs[StartT, *ResultTs],
        over: Callable[[StartT, *ResultTs], Sequence[ItemT]],
        limit: int,
        may_fail: Literal[True],
        returns: type[OtherT],
        keyed_by: Callable[[StartT, *ResultTs, ItemT], str] = ...,
        **options: Unpack[SubsagaOptions[StartT]],
    ) -> Step[StartT, tuple[SubsagaCompleted[OtherT] | SubsagaCompensated, ...]]: ...
    def subsaga_each(self, child: "Saga[Any]", start: Callable[..., object], **said: Any) -> Any:
        """Declare a sub-saga for each item of a list of at most `limit`, side by side; the result is all their endings.

        Each has a business key of its own: what `keyed_by` gives it, or this saga's key, a slash, and the number of the
        item from 0. One that compensates turns this saga round; with `may_fail=True` it does not, and its ending is a
        SubsagaCompensated among the others. The list must depend on nothing but what the function receives.
        """
        return self._subsaga("subsaga_each", child, start, said)

    def _subsaga(self, method: str, child: Any, start: Callable[..., object], said: dict[str, Any]) -> Any:
        where = f"saga {self._draft.name}: sub-saga {getattr(child, 'name', child)}"
        judge_words(where, method, said)
        judge_builder(where, start)
        if not isinstance(child, Subsagas):
            raise DefinitionError(
                f"saga {self._draft.name}: {child!r} is no saga",
                next_step="give the Saga itself, imported from its module",
            )
        definition: Definition = child._draft.compile()
        self._judge_returned(definition, said.get("returns"))
        if definition.steps[-1].activity is Activity.NEXT:
            raise DefinitionError(
                f"{where}: it starts its next instance when it has completed, of which this saga would know nothing",
                next_step="let a saga that nobody awaits do that",
            )
        may_fail = bool(said.get("may_fail"))
        if may_fail and definition.kind is not Kind.COMPENSATABLE:
            raise DefinitionError(
                f"{where}: it may fail, and saga {definition.name} is {definition.kind.value}: it cannot be given up",
                next_step="leave may_fail out, or let the sub-saga be one that can be undone",
            )
        fails = () if definition.kind is Kind.RETRIABLE else (SubsagaCompensated,)
        return self._add(
            StepParts(
                said.get("key", definition.name),
                definition.kind,
                Activity.SUBSAGA,
                needs=said.get("needs"),
                after=said.get("after"),
                build=start,
                succeeds=(SubsagaCompleted, *fails) if may_fail else (SubsagaCompleted,),
                fails=() if may_fail else fails,
                tolerated=fails if may_fail else (),
                timing={"within": said["within"], "attempts": 1},
                over=said.get("over"),
                items_max=said.get("limit", 0),
                keyed_by=said.get("keyed_by"),
                undo_subsaga=said.get("undo"),
                child=definition,
            )
        )

    def _judge_returned(self, child: Definition, returns: type | None) -> None:
        declared = tuple(child.steps[child.result].outcomes) if child.result is not None else ()
        if returns is not None and returns not in declared:
            named = declared[0].__name__ if declared else "nothing"
            raise DefinitionError(
                f"saga {self._draft.name}: it expects saga {child.name} to return {returns.__name__}, and that returns "
                f"{named}",
                next_step="name the class of the sub-saga's own saga.result(..., event=...)",
            )
