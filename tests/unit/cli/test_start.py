"""How the command line starts: a verb imports what it needs when it runs, so that `towpath --help` does not wait."""

import subprocess
import sys

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
