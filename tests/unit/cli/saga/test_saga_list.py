"""What the list of instances says where it is cut."""

import json

import pytest

from tests.unit.saga.support import OPENED, chain
from towpath.cli import saga_instances
from towpath.cli.saga_instances import list_instances
from towpath.orchestrator.instance_status import KeptInstance
from towpath.saga.testing import given


@pytest.mark.parametrize(
    ("limit", "says"), [(2, "2 instances of 3, cut by --limit"), (3, "3 instances"), (None, "3 instances")]
)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_list_that_is_cut_says_of_how_many(
    limit: int | None, says: str, as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the JSON, which has the instances alone and says nothing where it has all."""
    state = given(chain(), OPENED).expect_anything().state
    monkeypatch.setattr(saga_instances, "load_settings", lambda: None)
    monkeypatch.setattr(saga_instances, "_sagas", lambda *_: ["chain"])
    monkeypatch.setattr(saga_instances, "read_instances", lambda *_: (KeptInstance(state, 1, True),) * 3)
    list_instances(limit=limit, as_json=as_json)
    printed = capsys.readouterr()
    if as_json:
        assert len(json.loads(printed.out)) == (limit or 3)
    assert printed.err.strip() == (says if not as_json or limit == 2 else "")
