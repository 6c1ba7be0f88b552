"""Keeps what runs where: `<schemas>/deployed/<environment>/<party>.json`, a file a party, in the project's repository.

A file, and not a topic: the question is asked before anything is deployed, by a build server that reaches no cluster;
who deployed what is reviewed and kept by the repository like every other change; and two services that are deployed at
once write two files. A topic would know the same, and only those who hold the environment's credentials could ask it.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from towpath.contract.deploy import Deployment, Environment
from towpath.contract.parse import misspelt
from towpath.errors import ContractError, NotFoundError

FOLDER: Final = "deployed"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")


def load_environment(folder: Path, name: str) -> Environment:
    """Return what is recorded of the environment `name`; one that nobody recorded is empty.

    Raises NotFoundError where it is probably misspelt, ContractError for a file that cannot be read.
    """
    known = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    if name not in known and (meant := misspelt(name, known)):
        raise NotFoundError(f"nothing is recorded of {name!r}{meant}", next_step=f"one of: {', '.join(sorted(known))}")
    require_name(name, "environment")
    found: list[Deployment] = []
    for path in sorted((folder / name).glob("*.json")):
        shown = f"{FOLDER}/{name}/{path.name}"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found += [Deployment.from_json(one, shown) for one in content]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ContractError(
                f"{shown}: it is no record of deployments: {error!r}", next_step=f"git checkout {shown}"
            ) from error
    running = tuple(one for one in found if one.until is None)
    return Environment(name, running, tuple(one for one in found if one.until is not None))


def environments(folder: Path) -> tuple[str, ...]:
    """Return the names of the environments of which something is recorded."""
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()


def save_party(folder: Path, environment: Environment, party: str) -> Path:
    """Write the file of one party; return it."""
    require_name(party, "party")
    path = folder / environment.name / f"{party}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    mine: Iterable[Deployment] = (*environment.of(party), *(o for o in environment.retired if o.party.name == party))
    text = json.dumps([one.to_json() for one in mine], indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def require_name(name: str, what: str) -> None:
    """Refuse a name that could leave its folder. Raises ContractError."""
    if not _NAME.match(name):
        raise ContractError(f"{name!r} is no name of an {what}", next_step="use letters, digits, dots, dashes and _")
