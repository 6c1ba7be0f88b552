"""What commands tell a person to run next, run as printed on a stack that runs."""

from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from tests.next_steps import Case, Step, apart, check, run, step_in
from tests.stack_fixture import ROOT, RunningStack, stack_environment

NOBODYS = "00000000-0000-4000-8000-000000000001"

AS_UP_LEFT_IT = (
    Case(f"capture skip order {NOBODYS} --reason t", 5, (Step("capture recover order --dry-run"),)),
    Case(f"capture resend order {NOBODYS}", 5, (Step("capture skipped"),)),
    Case("positions accept nobody order.events 0 --reason t", 5, (Step("positions list"),)),
    Case("replay show nobody", 5, (Step("replay list"),)),
    Case("contracts diff . registry", 3, (Step("contracts diff registry"),)),
    Case("contracts diff HEAD registry", 3, (Step("contracts diff registry HEAD"),)),
    Case("contracts import registry --subject nobodys", 5, (Step("contracts import --help", says="--subject"),)),
    Case(
        "views build towpath_saga_instances --version 4 --from outbox --reason t",
        6,
        (
            Step(
                "views build towpath_saga_instances --version 4 --from snapshot --reason REASON",
                6,
                "towpath views build towpath_saga_instances --version 4\n",
            ),
        ),
    ),
    Case("replay run HERE/none", 5, (Step("replay plan --topic TOPIC --output FILE"),)),
)
"""Nothing has been ordered, nothing is dead, nothing is built beside what the project declares."""

OF_A_SMALL_PROJECT = (
    Case("add saga billing --asks shipping", 5, (Step("add service shipping"),)),
    Case("add record shipping.Parcel weight:heavy", 2, (Step("add record --help", says="Types: boolean"),)),
    Case("add topic shipping.commands", 2, (Step("contracts generate"),)),
    Case("contracts generate --check", 0, ()),
    Case("contracts diff HEAD", 5, (Step("contracts snapshot FILE"),)),
    Case("add service storing", 0, (Step("add saga NAME --asks storing"),)),
    Case("contracts test", 0, (Step("contracts release"),)),
    Case(
        "contracts can-deploy place_order@new --to production",
        0,
        (Step("contracts deployed payment@VERSION --to production"),),
    ),
    Case("saga check", 0, (Step("saga check --explain", says="explored whole"),)),
    Case("saga show nobody x", 5, ()),
    Case("views build nobody", 5, (Step("views list", 1, "towpath status"),)),
    Case("migrate", 1, (Step("status", 1, "not running"),)),
    Case("replay plan --topic order.events", 1, (Step("status", 1, "not running"),)),
    Case("new Myshop", 2, (Step("new myshop", says="towpath dev"),)),
    Case("new myshop", 6, ()),
    Case("contracts import registry", 1, (Step("status", 1, "not running"),)),
)
"""In a project as `towpath new` makes it; each line finds it as the one before has left it."""

WITH_A_LOST_TOPIC = (
    Case("contracts generate", 3, (Step("add topic order.events"),)),
    Case("contracts generate", 0, ()),
    Case("add topic payment.events", 5, (Step("add record payment.NAME --topic payment.events"),)),
)
"""In the same project, where somebody has removed the file of a topic."""

WITH_A_BROKEN_EXAMPLE = (
    Case("contracts test", 3, (Step("contracts waive --help", says="--until"),)),
    Case("contracts release", 3, (Step("contracts test", 3),)),
)
"""In the same project, with an example that does not fit its schema."""

WITHOUT_SAGAS = (Case("saga show nobody x", 5, (Step("add saga NAME"),)),)
"""In the same project, with its one saga removed."""

CASES = (*AS_UP_LEFT_IT, *OF_A_SMALL_PROJECT, *WITH_A_LOST_TOPIC, *WITH_A_BROKEN_EXAMPLE, *WITHOUT_SAGAS)


@pytest.mark.parametrize("case", AS_UP_LEFT_IT, ids=lambda case: case.words)
def test_what_a_stack_as_up_left_it_prints_is_run_as_printed(stack: RunningStack, tmp_path: Path, case: Case) -> None:
    """Each next step of the table, in the state in which it is printed."""
    del stack
    check(case.at(tmp_path), run, ROOT, tmp_path)


def test_migrations_that_wait_are_applied_by_what_is_printed(stack: RunningStack, tmp_path: Path) -> None:
    """`migrate --check` ends with 1 as long as one is left."""
    service = f"migrated_{uuid4().hex[:8]}"
    with psycopg.connect(stack.settings.postgres.database_url("views"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {service}")
    (tmp_path / "towpath.toml").write_text(
        f'[project]\nname = "shop"\nservices = ["shop.{service}:service"]\n', encoding="utf-8"
    )
    path = tmp_path / f"infra/postgres/{service}/0001_parcels.sql"
    path.parent.mkdir(parents=True)
    path.write_text("CREATE TABLE parcel (parcel_id text PRIMARY KEY);", encoding="utf-8")
    waiting = run(tmp_path, "migrate", "--check").leads_on()
    applied = run(tmp_path, *step_in(waiting.text, "migrate")).leads_on()
    assert (waiting.code, applied.code, "0001_parcels" in applied.text) == (1, 0, True), waiting.text + applied.text
    assert run(tmp_path, "migrate", "--check").code == 0


@pytest.mark.crash
def test_what_a_small_project_prints_is_run_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each next step of the table, one after the other, in a process of its own: it has modules of its own.

    Needs no stack, but some dozens of processes: it is in the long form.
    """
    for name, value in stack_environment(tmp_path / "stack").items():  # not the session's stack
        monkeypatch.setenv(name, value)
    made = apart(tmp_path, "new", "shop").leads_on()
    assert made.code == 0, made.text
    shop = tmp_path / "shop"
    for case in OF_A_SMALL_PROJECT:
        check(case, apart, shop, tmp_path)
    (shop / "schemas/topics/order.events.yaml").unlink()
    for case in WITH_A_LOST_TOPIC:
        check(case, apart, shop, tmp_path)
    example = shop / "schemas/examples/order.json"
    whole = example.read_text(encoding="utf-8")
    example.write_text(whole.replace('"total_cents": ', '"total_cents": -1.5, "was": '), encoding="utf-8")
    for case in WITH_A_BROKEN_EXAMPLE:
        check(case, apart, shop, tmp_path)
    example.write_text(whole, encoding="utf-8")
    for path in shop.glob("sagas/[a-z]*.py"):
        path.unlink()
    for case in WITHOUT_SAGAS:
        check(case, apart, shop, tmp_path)
