"""Which partitions an outbox gets."""

from datetime import date

import pytest

from towpath.outbox.partitions import partition_day, partition_name, plan_partitions

TODAY = date(2026, 3, 1)


def test_a_new_outbox_gets_today_and_the_days_ahead() -> None:
    """A message of now and of the coming days finds its partition."""
    plan = plan_partitions([], TODAY, ahead_days=2, keep_days=7)
    assert plan.create == (date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 3))
    assert plan.drop == ()


def test_a_second_run_on_the_same_day_has_nothing_to_do() -> None:
    """Maintenance may run as often as it likes."""
    first = plan_partitions([], TODAY, ahead_days=3, keep_days=7)
    again = plan_partitions(map(partition_name, first.create), TODAY, ahead_days=3, keep_days=7)
    assert again.create == again.drop == ()


@pytest.mark.parametrize(("age_days", "dropped"), [(7, False), (8, True)])
def test_a_day_is_dropped_once_it_is_older_than_what_is_kept(age_days: int, dropped: bool) -> None:
    """The last day that `keep_days` promises is still there."""
    day = date.fromordinal(TODAY.toordinal() - age_days)
    plan = plan_partitions([partition_name(day)], TODAY, ahead_days=1, keep_days=7)
    assert (plan.drop == (day,)) is dropped


def test_a_day_of_which_the_default_partition_holds_rows_is_left_to_it() -> None:
    """PostgreSQL would refuse the partition; late maintenance must not become failing maintenance."""
    plan = plan_partitions([], TODAY, ahead_days=1, keep_days=7, caught=[TODAY])
    assert plan.create == (date(2026, 3, 2),)


@pytest.mark.parametrize("name", ["outbox_default", "outbox_heartbeat", "orders_20260301", "outbox_2026031"])
def test_only_dated_partitions_are_ever_dropped(name: str) -> None:
    """The default partition and other tables are no day's."""
    assert partition_day(name) is None


def test_names_and_days_correspond() -> None:
    """A partition's day can be read from its name."""
    assert partition_day(partition_name(TODAY)) == TODAY
