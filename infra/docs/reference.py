"""The reference pages of the documentation, made from the code itself, so that they cannot be out of date. Pure.

Each function returns one page as Markdown. `hooks.py` gives them to MkDocs; nothing of them is kept in the repository.
"""

import ast
import json
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer.main
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined
from typer.cli import get_docs_for_click

from infra.docs.error_classes import KEPT_AND_NEXT, error_classes
from infra.docs.json_shapes import OTHERWISE, SHAPES
from towpath import cli, errors, metrics
from towpath.contract.catalogue import TopicKind
from towpath.errors import ExitCode, TowpathError
from towpath.settings import Settings

ENGINE = Path(errors.__file__).resolve().parent
GENERATED = "*Made from the code when this site is built.*\n"

HEADERS = {
    "id": "Identifies the message for ever. Consumers drop a message whose id they have had.",
    "type": "Full name of the payload's record.",
    "saga_id": "The instance that a command, reply or timer belongs to.",
    "saga": "Name of its definition.",
    "step": "Stable key of the step.",
    "direction": "`do` or `undo`.",
    "attempt": "Which attempt of the round this command is: retries ask for the recorded reply.",
    "round": "Rises only when a person retries after a recorded failure.",
    "item": "Of a step over a list: which item.",
    "reply_to": "The topic that the reply goes to.",
    "traceparent": "W3C trace context, carried from the start event to every message of its saga.",
    "deadline": "Until when an answer is waited for, RFC 3339.",
    "tenant": "Carried like `traceparent`; Towpath does not look at it.",
    "idempotency_key": "The same for each attempt of a round: key of the inbox row, and of calls to outside systems.",
    "undoes": "Of an undo: the idempotency key of the command that it undoes.",
    "replay_id": "Of a replayed message: which replay sent it.",
    "dead": "Of a dead letter: its cause, position and history, as JSON.",
}
SAGA_TOPICS = {
    "replies": "answers of participants, from their outboxes",
    "signals": "what a wait takes: a person's decision, an outside event",
    "timers": "deadlines and delays that fell due",
    "operator": "requests of people: retry, skip, resume, cancel, compensate",
    "history": "every input with what it decided, kept as the saga's open record",
    "state": "the changelog of the instances, compacted",
    "events": "what the saga publishes itself, its result last",
}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    names = list(head)
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"


def page(title: str, introduction: str, *blocks: Iterable[str]) -> str:
    """Return a page."""
    lines = [f"# {title}", "", introduction, "", GENERATED]
    for block in blocks:
        lines += ["", *block]
    return "\n".join(lines) + "\n"


# Settings


def settings_page() -> str:
    """Return every setting with type, default, variable and meaning."""
    blocks: list[Iterable[str]] = []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            continue
        rows = [
            (f"`{key}`", f"`{_type_name(one.annotation)}`", _default(one), one.description or "")
            for key, one in section.model_fields.items()
        ]
        about = [
            f"## `[{name}]`",
            "",
            _first_paragraph(section),
            "",
            f"Variables: `TOWPATH_{name.upper()}__<SETTING>`",
            "",
        ]
        blocks.append([*about, *table(("Setting", "Type", "Default", "Meaning"), rows)])
    top = [
        (f"`{name}`", f"`{_type_name(field.annotation)}`", _default(field), field.description or "")
        for name, field in Settings.model_fields.items()
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
    ]
    if top:
        blocks.insert(0, ["## At the top", "", *table(("Setting", "Type", "Default", "Meaning"), top)])
    return page(
        "Settings",
        "From `towpath.toml` in the project's folder, and from `TOWPATH_*` variables, which win over the file: "
        "`TOWPATH_KAFKA__BOOTSTRAP_SERVERS` sets `[kafka] bootstrap_servers`. Secrets may lie in files of the folder "
        "that `TOWPATH_SECRETS_DIR` names (`postgres__password`), each holding one value.",
        *blocks,
    )


def _type_name(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(str(value) for value in get_args(kind))
    if origin in (Union, types.UnionType):
        return " or ".join("none" if one is type(None) else _type_name(one) for one in get_args(kind))
    if origin is not None:
        inside = ", ".join("..." if one is Ellipsis else _type_name(one) for one in get_args(kind))
        return f"{origin.__name__}[{inside}]"
    return "secret" if kind is SecretStr else str(getattr(kind, "__name__", kind)).lower()


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "" if field.default_factory is not None else "required"
    return "none" if field.default is None else f"`{field.default}`"


def _first_paragraph(thing: Any) -> str:
    return " ".join((thing.__doc__ or "").strip().split("\n\n")[0].split())


# Command line


def cli_page() -> str:
    """Return every verb with its arguments and options, as Typer documents them."""
    cli._register()
    command = typer.main.get_command(cli.app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="towpath", title="Command line")
    body = text.partition("\n")[2].strip()
    codes = table(("Code", "Means"), ((str(int(code)), code.name.lower().replace("_", " ")) for code in ExitCode))
    introduction = "Results go to stdout, everything else to stderr. `--json` wherever there is a result. Exit codes:"
    return "\n".join(["# Command line", "", introduction, "", *codes, "", GENERATED, "", body, ""])


# Metrics


def metrics_page() -> str:
    """Return every metric with its kind, labels and meaning."""
    rows = []
    for one in vars(metrics).values():
        if isinstance(one, MetricWrapperBase):
            name = one._name + ("_total" if isinstance(one, Counter) else "")
            labels = ", ".join(f"`{label}`" for label in one._labelnames)
            rows.append((f"`{name}`", str(one._type), labels, one._documentation))
    return page(
        "Metrics",
        "In Prometheus' text format, where `metrics_port` is set. Labels are names that a project declares, never keys "
        "or ids.",
        table(("Metric", "Kind", "Labels", "Meaning"), sorted(rows)),
    )


# Topics and headers


def topics_page() -> str:
    """Return the kinds of topics, those of a saga, and the headers of messages."""
    kinds = [f"- `{kind.value}`" for kind in TopicKind]
    own = table(("Topic", "Holds"), ((f"`<saga>.{name}`", text) for name, text in SAGA_TOPICS.items()))
    headers = table(("Header", "Means"), ((f"`{name}`", text) for name, text in HEADERS.items()))
    return page(
        "Topics and headers",
        "Every value is Avro in the registry's wire format (a zero byte, the schema's id in four bytes, the body). "
        "Keys are UTF-8 text. Headers are UTF-8 text, too; those without a value are left out.",
        ["## Kinds of topics", "", *kinds],
        ["## The topics of a saga", "", *own],
        ["## Headers", "", *headers],
    )


# Errors


@dataclass(frozen=True, slots=True)
class Raised:
    """One place that raises: what it says, with `…` for what is filled in."""

    kind: str
    room: str
    cause: str
    kept: str
    next_step: str


def error_kinds() -> dict[str, type[TowpathError]]:
    """Return the classes of errors, by name, the general ones first."""
    found: dict[str, type[TowpathError]] = {}
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, TowpathError):
            found[value.__name__] = value
    return found


def raised(engine: Path = ENGINE) -> list[Raised]:
    """Return every place of the engine that raises one of the errors, in the order of its rooms and files."""
    known = set(error_kinds())
    places: list[Raised] = []
    trees = [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(engine.rglob("*.py"))]
    growing = True
    while growing:  # subclasses, however deep
        bases = {
            node.name
            for _, tree in trees
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and any(_name_of(base) in known for base in node.bases)
        }
        growing = not bases <= known
        known |= bases
    for path, tree in trees:
        room = path.relative_to(engine).parts[0].removesuffix(".py")
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name_of(node.func) in known and node.args:
                keywords = {one.arg: _text(one.value) for one in node.keywords if one.arg in ("kept", "next_step")}
                cause = _text(node.args[0])
                if cause.strip("… "):
                    kept, then = keywords.get("kept", ""), keywords.get("next_step", "")
                    places.append(Raised(_name_of(node.func), room, cause, kept, then))
    return list(dict.fromkeys(places))


def _name_of(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(one) if isinstance(one, ast.Constant) else "…" for one in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "…"


def errors_page() -> str:
    """Return the catalogue of errors: what each says, what is kept, and what to run next."""
    classes = (
        (
            f"`{kind.__name__}`",
            kind.__module__.split(".")[1],
            f"`{kind.__mro__[1].__name__}`",
            str(int(kind.exit_code)),
            _plain(_first_paragraph(kind)),
            *KEPT_AND_NEXT[kind.__name__],
        )
        for kind in error_classes()
    )
    head = ("Class", "Room", "Is a", "Exit code", "Cause", "Kept", "Run")
    blocks: list[Iterable[str]] = [["## Each class", "", *table(head, classes)]]
    places = raised()
    for room in dict.fromkeys(one.room for one in places):
        rows = (
            (f"`{one.kind}`", _plain(one.cause), _plain(one.kept), _plain(one.next_step))
            for one in places
            if one.room == room
        )
        blocks.append([f"## {room}", "", *table(("Class", "Says", "Kept", "Next"), rows)])
    return page(
        "Errors",
        "Each error says its cause, what is safe all the same, and what to do next. First the classes, then each place "
        "that raises one, by room; `…` stands for a name or number that is filled in. Errors carry names, ids and "
        "positions, never payloads.",
        *blocks,
    )


# JSON


def json_page() -> str:
    """Return what each verb prints with `--json`."""
    blocks: list[Iterable[str]] = []
    for verb, shape in SHAPES.items():
        more = [f"{OTHERWISE[verb][0].upper()}{OTHERWISE[verb][1:]}.", ""] if verb in OTHERWISE else []
        blocks.append([f"## `towpath {verb}`", "", *more, "```json", json.dumps(shape, indent=2), "```"])
    return page(
        "JSON",
        "What each verb prints on stdout with `--json`: one document. Names are stable, further ones may be added. A "
        'value says its type: `""` a text, `0` and `0.0` a number, `true` a truth value, `null` a text or none; `{}` '
        "an object whose names are data; a list shows one item of many. Exit codes are those of [the verb](cli.md).",
        *blocks,
    )


def _plain(text: str) -> str:
    """Return text that Markdown does not take for markup."""
    for sign in "\\`*_<[":
        text = text.replace(sign, f"\\{sign}" if sign != "<" else "&lt;")
    return text


PAGES = {
    "reference/settings.md": settings_page,
    "reference/cli.md": cli_page,
    "reference/metrics.md": metrics_page,
    "reference/topics.md": topics_page,
    "reference/errors.md": errors_page,
    "reference/json.md": json_page,
}


def pages_of(navigation: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield title and path of each page of a navigation as `mkdocs.yml` has it."""
    for one in navigation:
        if isinstance(one, str):
            yield "Overview", one
        else:
            for title, inside in one.items():
                yield from pages_of(inside) if isinstance(inside, list) else [(title, inside)]


def llms(pages: Iterable[tuple[str, str]]) -> str:
    """Return `llms.txt`: what the site holds, for readers that are programs (llmstxt.org)."""
    head = (
        "# Towpath\n\n> Business transactions across services, on PostgreSQL, Debezium, Kafka and Faust: sagas proved "
        "before they run, exactly once end to end.\n\n## Pages\n\n"
    )
    return head + "".join(f"- [{title}]({path.removesuffix('.md')}/)\n" for title, path in pages)
