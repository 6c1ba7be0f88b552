"""A view over HTTP: a FastAPI router with one row by its key, and pages of rows.

The one rule: what a request asks is checked against the row's own fields, and an answer that has not changed since the
reader's `ETag` is not sent again.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, get_args, get_type_hints

from towpath.errors import ConfigurationError, NotFoundError, WorldError
from towpath.view.reads.postgres import ViewReader
from towpath.view.reads.reading import LIMIT_MAX, Comparing, Filter, Seen
from towpath.view.view import View

PLAIN = frozenset({"limit", "after", "min_position", "min_event", "timeout_seconds"})
TIMEOUT_SECONDS_MAX = 30.0


def view_router(reader: ViewReader[Any], view: View[Any]) -> Any:
    """Return a router with `GET /{key}` and `GET /`, to be included where the application wants them.

    Query parameters: a field of the row (`status=placed`), compared otherwise by a suffix (`total_cents.ge=100`: lt,
    le, gt, ge); `limit` and `after` for pages; `min_position` (`topic[partition]@offset`) or `min_event` (the id of an
    outbox row) to see one's own write, waited for at most `timeout_seconds`. Answers 304 to a known `If-None-Match`,
    404 for a key without a row, 422 for a field that is not there or a value that does not fit it, 503 with
    `Retry-After` where the write is not folded in time or the database is away. Raises ConfigurationError where FastAPI
    is not installed.
    """
    try:
        from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
    except ModuleNotFoundError as error:
        raise ConfigurationError("the router needs FastAPI", next_step="pip install fastapi") from error

    router = APIRouter(tags=[view.name])
    known = {name: _plain_type(hint) for name, hint in get_type_hints(view.row).items()}

    def answer(make: Any, known_tag: str | None, response: Any) -> Any:
        try:
            found, tag = make()
        except WorldError as error:  # NotYetRead among them
            raise HTTPException(503, error.cause, headers={"Retry-After": "1"}) from error
        except NotFoundError as error:
            raise HTTPException(503, error.cause) from error
        except (ConfigurationError, ValueError) as error:
            raise HTTPException(422, str(error)) from error
        quoted = f'"{tag}"'
        if known_tag is not None and _is_known(quoted, known_tag.split(",")):
            return Response(status_code=304, headers={"ETag": quoted})
        response.headers["ETag"] = quoted
        return found

    @router.get("/{key}", name=f"get_{view.name}")
    def get(
        key: str,
        response: Response,
        min_position: str | None = None,
        min_event: str | None = None,
        timeout_seconds: float = Query(5.0, ge=0, le=TIMEOUT_SECONDS_MAX),
        if_none_match: str | None = Header(None),
    ) -> Any:
        def make() -> tuple[Any, str]:
            seen = _seen(min_position, min_event)
            read = reader.get(_value(view.key, key, known), seen=seen, timeout_seconds=timeout_seconds)
            if read.row is None:
                raise HTTPException(404, f"{view.name} has no row {key}", headers={"ETag": f'"{read.tag}"'})
            return _told(asdict(read.row)), read.tag

        return answer(make, if_none_match, response)

    @router.get("/", name=f"list_{view.name}")
    def pages(
        request: Request,
        response: Response,
        limit: int = Query(100, ge=1, le=LIMIT_MAX),
        after: str | None = None,
        min_position: str | None = None,
        min_event: str | None = None,
        timeout_seconds: float = Query(5.0, ge=0, le=TIMEOUT_SECONDS_MAX),
        if_none_match: str | None = Header(None),
    ) -> Any:
        def make() -> tuple[Any, str]:
            page = reader.page(
                [
                    _filter(name, value, known)
                    for name, value in request.query_params.multi_items()
                    if name not in PLAIN
                ],
                after=None if after is None else _value(view.key, after, known),
                limit=limit,
                seen=_seen(min_position, min_event),
                timeout_seconds=timeout_seconds,
            )
            rows = [_told(asdict(row)) for row in page.rows]
            return _told({"rows": rows, "after": page.after}), page.tag

        return answer(make, if_none_match, response)

    return router


def _told(values: dict[str, Any]) -> dict[str, Any]:
    """Return values as they are told in JSON: bytes, which are seldom a text, as base64."""
    return {name: b64encode(value).decode() if isinstance(value, bytes) else value for name, value in values.items()}


def _seen(position: str | None, event_id: str | None) -> Seen | None:
    return None if position is None and event_id is None else Seen(position, event_id)


def _filter(name: str, value: str, known: Mapping[str, Any]) -> Filter:
    field, _, comparing = name.partition(".")
    if field not in known:
        raise ConfigurationError(f"there is no field {field!r}", next_step=f"use one of {sorted(known)}")
    return Filter(field, _value(field, value, known), Comparing(comparing or "eq"))


def _value(field: str, text: str, known: Mapping[str, Any]) -> Any:
    """Return a text as a value of a field. Raises ConfigurationError for what is none."""
    try:
        return known[field](text)
    except (ValueError, LookupError, ArithmeticError, TypeError) as error:
        raise ConfigurationError(f"{text!r} is no value of {field}", next_step="see the row's types") from error


def _is_known(tag: str, told: Iterable[str]) -> bool:
    """Return whether a reader has what it would be sent; a proxy that compresses makes a tag weak (RFC 9110)."""
    return any(one.strip().removeprefix("W/") in (tag, "*") for one in told)


def _plain_type(hint: Any) -> Any:
    """Return what makes a value of a field of a text."""
    from datetime import date, datetime

    options = [option for option in (get_args(hint) or (hint,)) if option is not type(None)]
    plain = options[0]
    if plain is bool:
        return lambda text: {"true": True, "false": False}[text.lower()]
    if plain is bytes:
        return partial(b64decode, validate=True)
    if plain in (datetime, date):
        return plain.fromisoformat
    return plain
