"""Keeps what runs where: `<schemas>/deployed/<environment>/<party>.json`, a file a party, in the project's repository.

A file, and not a topic: the question is asked before anything is deployed, by a build server that reaches no cluster;
who deployed what is reviewed and kept by the repository like every other change; and two services that are deployed at
once write two files. A topic would know the same, and only those who hold the environment's credentials could ask it.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from towpath.contract.deploy import Deployment, Environment
from towpath.contract.parse import misspelt
from towpath.errors import ContractError, NotFoundError

FOLDER: Final = "deployed"
# A name becomes a file's name, which holds 255 bytes.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}\Z")


@contextmanager
def recording(folder: Path) -> Iterator[None]:
    """Hold what is recorded below `folder`: of two that read and write it at once, one waits for the other."""
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def load_environment(folder: Path, name: str) -> Environment:
    """Return what is recorded of the environment `name`; one that nobody recorded is empty.

    Raises NotFoundError where it is probably misspelt, ContractError for a file that cannot be read.
    """
    known = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    if name not in known and (meant := misspelt(name, known)):
        raise NotFoundError(f"nothing is recorded of {name!r}{meant}", next_step=f"one of: {', '.join(sorted(known))}")
    require_name(name, "an environment")
    found: list[Deployment] = []
    for path in sorted((folder / name).glob("*.json")):
        shown = f"{FOLDER}/{name}/{path.name}"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found += [Deployment.from_json(one, shown) for one in content]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError, ContractError) as error:
            raise ContractError(
                f"{shown}: it is no record of deployments: {error!r}", next_step=f"git checkout -- {path}"
            ) from error
    running = tuple(one for one in found if one.until is None)
    return Environment(name, running, tuple(one for one in found if one.until is not None))


def environments(folder: Path) -> tuple[str, ...]:
    """Return the names of the environments of which something is recorded."""
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()


def save_party(folder: Path, environment: Environment, party: str) -> Path:
    """Write the file of one party, whole or not at all; return it."""
    require_name(party, "a party")
    path = folder / environment.name / f"{party}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    mine: Iterable[Deployment] = (*environment.of(party), *(o for o in environment.retired if o.party.name == party))
    text = json.dumps([one.to_json() for one in mine], indent=1, ensure_ascii=False)
    whole = path.with_suffix(f".{os.getpid()}.new")
    whole.write_text(text + "\n", encoding="utf-8")
    whole.replace(path)
    return path


def require_name(name: str, what: str) -> None:
    """Refuse a name that could leave its folder. Raises ContractError."""
    if not _NAME.match(name):
        raise ContractError(f"{name!r} is no name of {what}", next_step="use letters, digits, dots, dashes and _")
