"""How the command line starts: a verb imports what it needs when it runs, so that `towpath --help` does not wait."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from towpath.cli.saga_check import STATES_MAX
from towpath.saga.check.explore import STATES_MAX as OF_THE_CHECK

GROUND = {"towpath", "towpath.errors", "towpath.settings", "towpath.clock", "towpath.cli"}
"""What every verb has at hand; beside it only the modules with the verbs themselves."""
SCRIPT = """
import sys
from towpath import cli
cli._register()
print(*sys.modules, sep="\\n")
"""


def test_to_know_the_verbs_no_room_is_imported() -> None:
    """Neither a room of the engine nor a library that talks to anything is loaded to say which verbs there are."""
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(ran.stdout.split())
    rooms = {name for name in loaded if name.partition(".")[0] == "towpath" and not name.startswith("towpath.cli.")}
    assert rooms == GROUND
    assert not loaded & {"psycopg", "httpx", "confluent_kafka", "faust", "structlog", "fastavro", "prometheus_client"}


def test_the_verb_shows_the_bound_that_the_check_has() -> None:
    """`saga check` names its default without importing the check; the two are the same number."""
    assert STATES_MAX == OF_THE_CHECK


def test_the_shell_completes_verbs() -> None:
    """As `towpath --install-completion` sets it up: what is typed so far goes in, what may follow comes out."""
    asked = {"_TOWPATH_COMPLETE": "complete_bash", "COMP_WORDS": "towpath sa", "COMP_CWORD": "1"}
    command = [sys.executable, "-c", "import sys; sys.argv = ['towpath']; from towpath.cli import main; main()"]
    done = subprocess.run(
        command, env={**os.environ, **asked}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.split() == ["saga"], done.stderr


def test_what_is_not_installed_is_told_by_an_extra_that_exists() -> None:
    """In the code and on the pages: pip passes over a name that it does not know."""
    root = Path(__file__).resolve().parents[3]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pages = [*root.glob("towpath/**/*.py"), *root.glob("docs/**/*.md"), root / "README.md"]
    named = {name for path in pages for name in re.findall(r"towpath\[([a-z]+)\]", path.read_text(encoding="utf-8"))}
    assert named == set(project["optional-dependencies"])


def test_an_interrupt_while_it_still_imports_is_told_in_a_word() -> None:
    """A person who presses Ctrl-C at once is not shown where in the imports that was."""
    script = """
import sys
class Interrupt:
    def find_spec(self, name, *rest):
        if name == "towpath.cli.views":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from towpath.cli import main
main()
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (1, "interrupted\n")


def test_an_argument_that_is_no_text_is_refused() -> None:
    """No reason or key could be kept with it: PostgreSQL, JSON and Kafka's keys take UTF-8 alone."""
    command: list[str | bytes] = [
        sys.executable,
        "-c",
        "from towpath.cli import main; main()",
        b"dead",
        b"list",
        b"--reason=\xff",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: the argument b'--reason=\\xff' is no text in UTF-8\nnext: ")
