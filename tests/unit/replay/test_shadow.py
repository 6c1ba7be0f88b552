"""A changed definition over recorded runs: exactly what would have gone otherwise, and how sure that is."""

from pathlib import Path
from typing import Any

import pytest

from sagas import place_order
from schemas.records.payment import PaymentAuthorised
from tests.scenarios.craftygoods import SMALL
from towpath.replay.shadow import Comparison, Verdict, compare, run_in, world_of
from towpath.saga import Definition, Saga
from towpath.saga.inputs import Input, Replied, Started
from towpath.saga.testing import inputs_of, read_history
from towpath.saga.testing.samples import sample

ROOT = Path(__file__).resolve().parents[3]
HISTORIES = ROOT / "tests" / "histories" / "place_order" / "v1"
OLD = place_order.saga.definition
NAMES = sorted(path.stem for path in HISTORIES.glob("*.jsonl"))


def recorded(name: str) -> list[Input]:
    """Return the inputs of a golden history."""
    return inputs_of(OLD, read_history(HISTORIES / f"{name}.jsonl"))


def variant(changes: dict[str, str]) -> Definition:
    """Return place_order with these texts of its file replaced."""
    text = (ROOT / "sagas" / "place_order.py").read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    names: dict[str, Any] = {"__name__": "variant"}
    exec(compile(text, "variant", "exec"), names)
    saga = names["saga"]
    assert isinstance(saga, Saga)
    return saga.definition


def shadow(new: Definition, name: str) -> Comparison:
    """Return how `new` would have done in a recorded run."""
    return compare(OLD, new, recorded(name), sample, name)


def verdicts(new: Definition) -> dict[str, str]:
    """Return the verdict on every golden history but those that are the same."""
    found = {name: shadow(new, name).verdict for name in NAMES}
    return {name: verdict.value for name, verdict in found.items() if verdict is not Verdict.SAME}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_definition_does_the_same(name: str) -> None:
    """Time-outs, early answers, repetitions and people's requests included; and it ends as the record says."""
    inputs = recorded(name)
    found = compare(OLD, OLD, inputs, sample, name)
    assert found.verdict is Verdict.SAME
    ending = read_history(HISTORIES / f"{name}.jsonl")["entries"][-1]["decision"]["status"]
    assert found.ending_was == ending


def test_a_renamed_function_changes_nothing() -> None:
    """The step keeps its key, so no message differs."""
    new = variant(
        {
            "    authorise_payment,\n": '    block_amount,\n    key="authorise_payment",\n',
            "def authorise_payment(": "def block_amount(",
        }
    )
    assert verdicts(new) == {}


def test_a_lower_limit_makes_small_orders_wait_for_a_person() -> None:
    """Found independently: the orders that were small, and came to the approval; nobody was asked about them."""
    new = variant({"APPROVAL_ABOVE_CENTS = 1_000_00": "APPROVAL_ABOVE_CENTS = 1"})
    small = {
        name
        for name in NAMES
        if read_event(name).total_cents == SMALL.total_cents
        and any(
            isinstance(input_, Replied) and isinstance(input_.reply, PaymentAuthorised) for input_ in recorded(name)
        )
    }
    assert small
    found = {name: shadow(new, name) for name in NAMES}
    assert {name for name, one in found.items() if one.verdict is not Verdict.SAME} == small
    for name in small:
        one = found[name]
        assert one.verdict is Verdict.POSSIBLY
        assert one.becomes == "it waits for approval"
        assert set(one.endings) >= {"compensated", "completed"}
        assert one.explored > 1


def read_event(name: str) -> Any:
    """Return the start event of a recorded run."""
    first = recorded(name)[0]
    assert isinstance(first, Started)
    return first.event


def test_two_steps_in_another_order_differ_from_their_first_decision_on() -> None:
    """The stock is reserved only once the customer is verified: where both answered, the ending is the same."""
    new = variant({'    holds="stock",\n': '    holds="stock",\n    after=customer,\n'})
    found = {name: shadow(new, name) for name in NAMES}
    assert {one.verdict for one in found.values()} == {Verdict.DIFFERENT}
    one = found["completed"]
    assert "ReserveStock (reserve_stock)" in one.was
    assert "ReserveStock" not in one.becomes
    assert one.endings == ("completed",)
    assert found["customer_refused"].endings == ("compensated",)


def test_a_shorter_deadline_differs_where_something_took_longer() -> None:
    """Found independently: the runs that lasted longer than the new deadline."""
    new = variant({"deadline=days(4)": "deadline=hours(2)", "hours(24)": "hours(1)"})
    longer = {name for name in NAMES if lasted_milliseconds(name) > 2 * 3_600_000}
    assert longer
    different = verdicts(new)
    assert set(different) <= longer
    assert "nobody_decided" not in different or different["nobody_decided"] == "different"


def lasted_milliseconds(name: str) -> int:
    """Return how long a recorded run took."""
    inputs = recorded(name)
    return inputs[-1].at_milliseconds - inputs[0].at_milliseconds


def test_a_builder_that_fails_on_real_data_is_named() -> None:
    """The record has what the samples of the check never had."""
    new = variant({"return ConfirmOrder(order_id=order.order_id)": "return ConfirmOrder(order_id=order.lines[7].sku)"})
    one = shadow(new, "completed")
    assert one.verdict is Verdict.FAILS
    assert "confirm_order" in one.becomes


def test_another_command_asks_for_an_answer_that_nobody_gave() -> None:
    """A reply belongs to the command that was asked: another amount may be answered otherwise, so both are tried."""
    new = variant({"amount_cents=order.total_cents": "amount_cents=order.total_cents + 1"})
    one = shadow(new, "completed")
    assert one.verdict is Verdict.DIFFERENT
    assert "AuthorisePayment" in one.becomes
    assert set(one.endings) >= {"compensated", "completed"}
    assert one.explored >= 2


def test_a_history_whose_beginning_is_gone_is_refused() -> None:
    """Its retention has taken the start: nothing can be decided again."""
    with pytest.raises(ValueError, match="does not begin with the start"):
        world_of(OLD, recorded("completed")[1:])


def test_an_instance_under_way_is_the_same_up_to_where_its_record_ends() -> None:
    """What comes later is not known, to neither."""
    inputs = recorded("completed")[:3]
    one = compare(OLD, OLD, inputs, sample, "cut")
    assert (one.verdict, one.ending_was) == (Verdict.SAME, "running")
    assert run_in(OLD, world_of(OLD, inputs)).status == "running"
