"""Brings existing schemas in, for `contracts import`."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from towpath.cli import output
from towpath.errors import ContractError, NotFoundError
from towpath.settings import Settings

if TYPE_CHECKING:
    from towpath.contract.importing import Refusal, Source


def import_into(settings: Settings, source: str, *, service: str | None, dry_run: bool, as_json: bool) -> None:
    """Bring `source` in, and say what was written, kept and left out. Raises ContractError where something was not."""
    from towpath.contract.importing import plan_import, write_import

    sources, refusals = _sources(settings, source)
    plan = plan_import(sources, settings.root / settings.project.schemas / "avro", service=service)
    refused = [*refusals, *plan.refusals]
    written, kept = (tuple(plan.files), ()) if dry_run else write_import(plan)
    if as_json:
        output.emit_json(
            {
                "would_be_written" if dry_run else "written": [str(path) for path in written],
                "kept": [str(path) for path in kept],
                "refused": [{"source": item.source, "reason": item.reason} for item in refused],
                "notes": [{"source": item.source, "reason": item.reason} for item in plan.notes],
            }
        )
    else:
        for path in written:
            output.results.print(str(path), highlight=False, soft_wrap=True)
        for note in plan.notes:
            output.note(f"{note.source}: {note.reason}")
        for path in kept:
            output.note(f"kept as it was, though the import has another form: {path}")
        for item in refused:
            output.results.print(
                f"[bold red]not imported[/] {escape(item.source)}: {escape(item.reason)}", soft_wrap=True
            )
    if refused or kept:
        raise ContractError(
            f"{len(refused)} were not imported, {len(kept)} kept as they were",
            kept="what the project had, and what was imported",
            next_step="correct what is named above, then towpath contracts generate",
        )
    output.note("towpath contracts generate: it writes the record classes; then name the records in schemas/topics")


def _sources(settings: Settings, source: str) -> tuple[list["Source"], list["Refusal"]]:
    from towpath.contract.importing import from_subject, read_sources

    if source == "registry" or source.startswith(("http://", "https://")):
        from towpath.contract.registry import RegistryClient

        registry = settings.registry
        if source != "registry":
            registry = registry.model_copy(update={"url": source})
        sources: list[Source] = []
        refusals: list[Refusal] = []
        with RegistryClient(registry) as client:
            for subject in client.subjects():
                found, refused = from_subject(subject, [writer.avro for writer in client.writers(subject)])
                sources += found
                refusals += refused
        return sources, refusals
    path = Path(source)
    if not path.exists():
        raise NotFoundError(f"there is no file or folder {source}", next_step="name one, or the URL of a registry")
    return read_sources(path)
