"""The code of docs/views.md, run."""

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[3] / "docs" / "views.md"


def test_the_reader_of_the_page_is_made() -> None:
    """It holds no connection, so nothing is asked before a row is."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    names: dict[str, Any] = {"__name__": "docs"}
    exec(example, names)
    assert names["orders"].page.__name__ == "page"
