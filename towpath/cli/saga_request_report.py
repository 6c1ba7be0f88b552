"""How the verbs of a person's requests say what would happen, and what became of each request."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from towpath.cli import output
from towpath.errors import PartlyDoneError, RefusedError

if TYPE_CHECKING:
    from towpath.orchestrator.rehearsal import Rehearsed
    from towpath.orchestrator.requests import Answer, Preview, Request, UpgradeRequest

SHOWN_MAX = 20
"""Requests that are shown one by one; JSON has all."""


def show_previews(requests: Sequence["Request"], previews: dict[str, "Preview"], *, as_json: bool) -> None:
    """Say what the machine would decide about each request, by the request's id."""
    if as_json:
        output.emit_json([{**_plain(request), **asdict(previews[request.id])} for request in requests])
        return
    for request in requests[:SHOWN_MAX]:
        seen = previews[request.id]
        about = f"{request.action.value} {_place(request)}of {request.saga_id} (key {request.key})"
        _show_preview(about, seen)
    refused = sum(seen.refusal is not None for seen in previews.values())
    output.note(f"{output.counted(len(requests), 'request')}, {refused} of which would be refused; nothing was sent")


def show_rehearsal(saga: str, about: Mapping[str, str], seen: "Rehearsed", *, as_json: bool) -> None:
    """Say what would become of a signal; `about` has its topic, key, type and id."""
    if as_json:
        instances = [{"saga_id": saga_id, **asdict(preview)} for saga_id, preview in seen.decided.items()]
        more = {"instances": instances, "refusal": seen.refusal, "waits": seen.waits, "kept": seen.kept}
        output.emit_json({**about, **more})
        return
    signal = f"signal {about['type'].rpartition('.')[2]}"
    for saga_id, preview in seen.decided.items():
        _show_preview(f"{signal} to {saga_id} (key {about['key']})", preview)
    to_key = f"{signal} to key {about['key']}"
    if seen.refusal is not None:
        _line(f"{to_key}: would be refused: {seen.refusal}")
    if seen.waits is not None:
        _line(f"{to_key}: would wait, and its partition with it: {seen.waits}")
    if seen.kept:
        _line(f"{to_key}: no instance of {saga} has this key; it would be kept a day for one that starts")
    output.note(f"its id would be {about['id']}, in {about['topic']}; nothing was sent")


def _show_preview(about: str, seen: "Preview") -> None:
    if seen.refusal is not None:
        _line(f"{about}: would be refused: {seen.refusal}")
        return
    _line(f"{about}: {seen.status_before} -> {seen.status_after}")
    for step, was, becomes in seen.changes:
        _line(f"  {step}: {was or 'new'} -> {becomes}")
    for sent in seen.sends:
        _line(f"  would send {sent}")


def _line(text: str) -> None:
    output.results.print(text, highlight=False, soft_wrap=True)


def show_outcomes(
    name: str,
    requests: Sequence["Request | UpgradeRequest"],
    answers: "Mapping[str, Answer]",
    *,
    waited: bool,
    as_json: bool,
    next_step: str | None = None,
) -> None:
    """Say what became of each request. Raises RefusedError for the only one, PartlyDoneError for some of many.

    `next_step` is what to do where not all were applied; by default, to look at the saga.
    """
    rows = [_outcome(request, answers.get(request.id)) for request in requests]
    if as_json:
        output.emit_json(rows)
    else:
        output.show_rows([{k: v for k, v in row.items() if k != "request_id"} for row in rows[:SHOWN_MAX]])
        if len(rows) > SHOWN_MAX:
            output.note(f"the first {SHOWN_MAX} of {len(rows)}: --json has all")
    refused = [row for row in rows if row["outcome"] == "refused"]
    unanswered = [row for row in rows if row["outcome"] == "sent"]
    if len(rows) == 1 and refused:
        raise RefusedError(
            f"the saga refused it: {refused[0]['reason']}",
            kept="the saga, as it was",
            next_step=next_step or f"towpath saga show {name} {refused[0]['saga_id']}",
        )
    if refused or (unanswered and waited):
        raise PartlyDoneError(
            f"{len(rows) - len(refused) - len(unanswered)} applied, {len(refused)} refused, "
            f"{len(unanswered)} not answered yet",
            kept="each request in its topic: it takes effect once, however often it is sent",
            next_step=next_step
            or f"towpath saga list {name} --stuck, and towpath status to see whether the saga's worker runs",
        )


def _outcome(request: "Request | UpgradeRequest", answer: "Answer | None") -> dict[str, Any]:
    outcome = "sent" if answer is None else "applied" if answer.refusal is None else "refused"
    return {
        **_plain(request),
        "outcome": outcome,
        "reason": None if answer is None else answer.refusal,
        "status": None if answer is None else answer.status,
    }


def _plain(request: "Request | UpgradeRequest") -> dict[str, Any]:
    return {
        "request_id": request.id,
        "saga_id": request.saga_id,
        "key": request.key,
        **_asked(request),
    }


def _asked(request: "Request | UpgradeRequest") -> dict[str, Any]:
    from towpath.orchestrator.requests import UpgradeRequest

    if isinstance(request, UpgradeRequest):
        return {"action": "upgrade", "version": request.version}
    return {"action": request.action.value, "step": request.step, "item": request.item}


def _place(request: "Request") -> str:
    if not request.step:
        return ""
    return f"{request.step} item {request.item} " if request.item else f"{request.step} "
