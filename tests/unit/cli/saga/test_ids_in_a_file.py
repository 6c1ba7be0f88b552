"""A file of ids or keys, as `towpath saga retry --file` and its like take it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from towpath.cli.saga_request_options import _names_in
from towpath.cli.saga_requests import _name_unknown
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
