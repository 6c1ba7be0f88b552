"""Verbs of `saga`: prove a saga, draw it, look at its instances, replay its runs, and plan its next version."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from towpath.cli import (
    output,
    saga_check,
    saga_instances,
    saga_requests,
    saga_signal,
    saga_upgrade,
    saga_versions,
    saga_why,
)
from towpath.cli.files import write_text
from towpath.cli.saga_definitions import HISTORIES_FOLDER, find_definition, read_recorded, recorded_path
from towpath.errors import ConfigurationError, ContractError, NotFoundError
from towpath.settings import Settings, load_settings

saga_app = typer.Typer(help="Sagas: prove them before they run.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    saga_check.register(saga_app)
    saga_upgrade.register(saga_app)
    saga_versions.register(saga_app)
    saga_instances.register(saga_app)
    saga_requests.register(saga_app)
    saga_signal.register(saga_app)
    saga_why.register(saga_app)
    app.add_typer(saga_app, name="saga")


class Drawing(StrEnum):
    """What a diagram shows."""

    FLOW = "flow"
    STATES = "states"


class Form(StrEnum):
    """How a diagram is written."""

    MERMAID = "mermaid"
    SVG = "svg"


@saga_app.command()
def diagram(
    name: Annotated[str, typer.Argument(help="The saga.")],
    of: Annotated[Drawing, typer.Option("--of", help="Its steps, or how it may stand as a whole.")] = Drawing.FLOW,
    form: Annotated[Form, typer.Option("--form", help="Mermaid text, or an SVG document.")] = Form.MERMAID,
    version: Annotated[int | None, typer.Option("--version", help="By default the newest.")] = None,
    to: Annotated[Path | None, typer.Option("--output", help="Write to this file instead of stdout.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The text within a JSON object.")] = False,
) -> None:
    """Draw a saga from its definition."""
    from towpath.saga.diagram import flow_of, states_of, to_mermaid
    from towpath.saga.svg import to_svg

    definition = find_definition(load_settings(), name, version)
    graph = flow_of(definition) if of is Drawing.FLOW else states_of(definition)
    text = to_mermaid(graph) if form is Form.MERMAID else to_svg(graph)
    if to is not None:
        write_text(to, text)
        output.note(f"wrote {to}")
    elif as_json:
        output.emit_json({"saga": definition.name, "version": definition.version, form.value: text})
    else:
        typer.echo(text, nl=False)


@saga_app.command()
def record(
    histories: Annotated[str, typer.Option("--histories", help="Folder of the histories.")] = HISTORIES_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Name the files as JSON.")] = False,
) -> None:
    """Record each definition that is not recorded yet: `saga test` then sees it change, and `saga upgrade` finds it."""
    import json

    from towpath.project import load_sagas
    from towpath.saga.definition_snapshot import definition_snapshot_of

    settings = load_settings()
    written = []
    for versions in load_sagas(settings).values():
        for definition in versions.values():
            path = recorded_path(settings, histories, definition.name, definition.version)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(definition_snapshot_of(definition), indent=2) + "\n", encoding="utf-8")
                written.append(str(path.relative_to(settings.root)))
    if as_json:
        output.emit_json({"written": written})
        return
    for name in written:
        output.results.print(name, highlight=False, soft_wrap=True)
    output.note(f"{len(written)} definitions recorded; one that was recorded before is never written again")


@saga_app.command(name="test")
def replay_histories(
    histories: Annotated[str, typer.Option("--histories", help="Folder of the histories.")] = HISTORIES_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report as JSON.")] = False,
) -> None:
    """Hold each saga against what was recorded of it: its definition, and every golden history, decided again."""
    from towpath.project import load_sagas

    settings = load_settings()
    if histories != HISTORIES_FOLDER and not (settings.root / histories).is_dir():
        raise NotFoundError(f"there is no folder {histories}", next_step="name the folder that holds the histories")
    reports = [
        _against_records(settings, histories, definition)
        for versions in load_sagas(settings).values()
        for definition in versions.values()
    ]
    if as_json:
        output.emit_json(reports)
    else:
        for report in reports:
            verdict = "[red]changed[/]" if report["changed"] else "[green]as recorded[/]"
            output.styled_result(
                f"[bold]{report['saga']}[/] version {report['version']}: {verdict}, {report['histories']} histories"
            )
            for line in report["changed"]:
                output.results.print(f"  {line}", highlight=False, soft_wrap=True)
    changed = [report for report in reports if report["changed"]]
    if changed:
        raise ContractError(
            f"{len(changed)} sagas are not what was recorded under their version",
            next_step="raise the version of what was changed on purpose, and record it: towpath saga record",
        )


def _against_records(settings: Settings, histories: str, definition: Any) -> dict[str, Any]:
    import json

    from towpath.saga.definition_snapshot import definition_snapshot_of, differences
    from towpath.saga.testing.golden import HistoryChanged, read_history, replay

    recorded = recorded_path(settings, histories, definition.name, definition.version)
    changed = []
    if recorded.exists():
        changed += differences(read_recorded(recorded), json.loads(json.dumps(definition_snapshot_of(definition))))
    paths = sorted(recorded.parent.glob("*.jsonl"))
    for path in paths:
        try:
            replay(definition, read_history(path), str(path.relative_to(settings.root)))
        except HistoryChanged as error:
            changed.append(str(error))
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{path} is no golden history of saga {definition.name} version {definition.version}: {error!r}",
                next_step="move it away, or take it as `towpath saga history NAME ID --golden FILE` wrote it",
            ) from error
    return {
        "saga": definition.name,
        "version": definition.version,
        "recorded": recorded.exists(),
        "histories": len(paths),
        "changed": changed,
    }
