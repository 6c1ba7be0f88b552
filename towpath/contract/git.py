"""Reads a project's contracts as they were at a commit, from the repository that the project lies in."""

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

from towpath.contract.catalogue import Catalogue
from towpath.contract.files import SchemaSet, engine_set, load_contracts
from towpath.contract.snapshot import Snapshot
from towpath.errors import ConfigurationError, ContractError, NotFoundError
from towpath.settings import PROJECT_FILE, Settings, load_settings


def snapshot_at(settings: Settings, reference: str) -> Snapshot:
    """Return the contracts at `reference`: a commit, branch or tag.

    Raises NotFoundError where there is no such commit or it held no contracts, ContractError where they were wrong.
    """
    named = _commit(settings.root, reference)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        try:
            schemas = _schemas_at(settings, named, root)
            _extract(settings.root, named, schemas, root)
            source = SchemaSet(settings.project.name, root / schemas / "avro", "unused", root / "unused", root)
            if not source.folder.is_dir():
                raise NotFoundError(
                    f"at {reference}, {schemas}/avro is not in the repository: a submodule, or left out of archives",
                    next_step="compare with a file: towpath contracts snapshot FILE writes one",
                )
            contracts = load_contracts((engine_set(), source))
            return Snapshot.of(reference, contracts, Catalogue.read(root / schemas / "topics"))
        except tarfile.FilterError as error:
            problem = f"{error.tarinfo.name} is a link that leads out of the folder"
            raise _unusable(reference, problem) from error
        except (ContractError, ConfigurationError) as error:
            raise _unusable(reference, error.cause.replace(f"{root}/", "")) from error


def _unusable(reference: str, problem: str) -> ContractError:
    return ContractError(
        f"as it was at {reference}: {problem}",
        next_step="name another commit, or compare with a file: towpath contracts snapshot FILE writes one",
    )


def _commit(root: Path, reference: str) -> str:
    """Return the commit that a reference names. Raises NotFoundError."""
    try:
        # A reference that begins with a dash would be taken for an option.
        found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{reference}^{{commit}}")
    except NotFoundError as error:
        if "not a git repository" in error.cause:
            raise
        try:
            shallow = _git(root, "rev-parse", "--is-shallow-repository").strip() == b"true"
        except NotFoundError:
            raise error from None
        raise NotFoundError(
            f"there is no commit, branch or tag {reference!r} here{': the history is cut off' if shallow else ''}",
            next_step="git fetch --unshallow --tags, and name origin/main where main is no branch here"
            if shallow
            else "git fetch, or name a commit that has the project's contracts",
        ) from error
    return found.decode().strip()


def _schemas_at(settings: Settings, commit: str, root: Path) -> str:
    """Return the folder of the schemas at that commit: it may have been another one."""
    try:
        _extract(settings.root, commit, PROJECT_FILE, root)
    except NotFoundError:
        return settings.project.schemas
    return load_settings(root).project.schemas


def _extract(root: Path, commit: str, path: str, target: Path) -> None:
    packed = io.BytesIO(_git(root, "archive", "--format=tar", commit, "--", path))
    try:
        with tarfile.open(fileobj=packed, mode="r:") as archive:
            archive.extractall(target, filter="data")
    except tarfile.ReadError:  # an archive of nothing: .gitattributes leaves it all out
        return


def _git(root: Path, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False)
    except OSError as error:
        raise NotFoundError("there is no git on this machine", next_step="compare with a snapshot file") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"git {' '.join(arguments)} failed"
        step = "git fetch, or name a commit that has the project's contracts"
        if "not a git repository" in said:
            step = "git init and commit, or compare with a file: towpath contracts snapshot FILE writes one"
        raise NotFoundError(f"git: {said}", next_step=step)
    return done.stdout
