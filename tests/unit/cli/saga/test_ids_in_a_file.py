"""A file of ids or keys, as `towpath saga retry --file` and its like take it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from towpath.cli.saga_request_options import Options, _names_in
from towpath.cli.saga_requests import _Asked, _choose, _name_unknown
from towpath.errors import ConfigurationError


def test_bytes_that_are_no_text_are_a_mistake_of_the_file(tmp_path: Path) -> None:
    """It is named, and nothing is asked of anybody."""
    path = tmp_path / "ids"
    path.write_bytes(b"order-1\n\xff\xfe\n")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        _names_in(path)


def test_lines_that_name_no_instance_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """They are passed over, and how many there are is told; one known by id or key is not among them."""
    known: Any = [SimpleNamespace(state=SimpleNamespace(saga_id=f"id-{n}", key=f"order-{n}")) for n in range(2)]
    _name_unknown(frozenset({"id-0", *(f"order-{number}" for number in range(1, 3000))}), known, "place_order")
    assert "2998 of 3000 lines name no instance of place_order" in capsys.readouterr().err


@pytest.mark.parametrize(("action", "why"), [("cancel", "have ended"), ("retry", "are not stuck")])
def test_named_instances_that_cannot_be_meant_are_told(
    action: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever wrote three ids and sees one sent learns what became of the others."""
    instances: Any = [
        SimpleNamespace(stuck=number == 0, state=SimpleNamespace(saga_id=f"id-{number}", key="k", ended=number > 0))
        for number in range(3)
    ]
    selection: Any = SimpleNamespace(
        names=frozenset({"id-0", "id-1", "id-2"}), everything=False, of=lambda all_, _: all_
    )
    found = _choose(instances, "place_order", _Asked(action, None, Options()), selection, 0)
    assert [one.state.saga_id for one in found] == ["id-0"]
    assert f"2 of the instances that the file names {why}, and are left out" in capsys.readouterr().err
