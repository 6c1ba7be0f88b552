"""Brings existing schemas in, for `contracts import`."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from towpath.cli import output
from towpath.errors import ContractError, NotFoundError
from towpath.settings import Settings

if TYPE_CHECKING:
    from towpath.contract.importing import Refusal, Source


def import_into(
    settings: Settings, source: str, *, subjects: Sequence[str], service: str | None, dry_run: bool, as_json: bool
) -> None:
    """Bring `source` in, and say what was written, kept and left out. Raises ContractError where something was not.

    `subjects` are the patterns of those to take of a registry; none: all.
    """
    from towpath.contract.importing import plan_import, write_import

    sources, refusals = _sources(settings, source, subjects)
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
            output.styled_result(f"[bold red]not imported[/] {escape(item.source)}: {escape(item.reason)}")
    if refused or kept:
        raise ContractError(
            f"{len(refused)} were not imported, {len(kept)} kept as they were",
            kept="what the project had, and what was imported",
            next_step="correct what is named above, then towpath contracts generate",
        )
    output.note("towpath contracts generate: it writes the record classes; then name the records in schemas/topics")


def _sources(settings: Settings, source: str, subjects: Sequence[str]) -> tuple[list["Source"], list["Refusal"]]:
    from towpath.contract.importing import from_subject, read_sources

    if source == "registry" or source.startswith(("http://", "https://")):
        from towpath.contract.registry import RegistryClient

        registry = settings.registry
        if source != "registry":
            registry = registry.model_copy(update={"url": source})
        sources: list[Source] = []
        refusals: list[Refusal] = []
        with RegistryClient(registry) as client:
            wanted = [one for one in client.subjects() if not subjects or any(fnmatchcase(one, it) for it in subjects)]
            for subject in wanted:
                versions, left = client.writers(subject), client.writers(subject, deleted=False)
                current = left[-1].avro if left else None
                found, refused = from_subject(subject, [writer.avro for writer in versions], current=current)
                sources += found
                refusals += refused
        if not wanted:
            raise NotFoundError(
                f"the registry holds no subject{' called ' + ' or '.join(subjects) if subjects else ''}",
                next_step="towpath contracts import --help",
            )
        return sources, refusals
    if subjects:
        raise ContractError("--subject chooses from a registry, not from files", next_step="leave it out")
    path = Path(source)
    if not path.exists():
        raise NotFoundError(f"there is no file or folder {source}", next_step="name one, or the URL of a registry")
    return read_sources(path)
