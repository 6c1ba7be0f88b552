"""The code of docs/views.md, run."""

import re
from pathlib import Path
from typing import Any

from towpath.view.declaring import checks_of

PAGE = Path(__file__).resolve().parents[3] / "docs" / "views.md"


def test_the_code_of_the_page_runs_from_top_to_bottom() -> None:
    """A reader holds no connection, so nothing is asked before a row is; a change is told as the page says."""
    names: dict[str, Any] = {"__name__": "docs"}
    for example in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        exec(example, names)
    assert names["orders"].page.__name__ == "page"
    row = names["OrderRow"]
    assert set(checks_of(row)) == {"check_status_1", "check_total_cents_1"}
    changes = names["telling"](names["view"]).changes
    assert changes.record("o-1", row("o-1", "placed", 1)) is None
    assert changes.record("o-1", row("o-1", "rejected", 1)).order_id == "o-1"
