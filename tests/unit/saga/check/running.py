"""Runs the text of a test that a check has written."""

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

MODULE = "saga_under_test"


def written_test(text: str, saga: Any, monkeypatch: pytest.MonkeyPatch, **others: Any) -> Callable[[], None]:
    """Return the one test function in `text`, which imports `saga` (and `others`) from MODULE."""
    module: Any = types.ModuleType(MODULE)
    module.saga = saga
    for name, value in others.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, MODULE, module)
    names: dict[str, Any] = {}
    exec(compile(text, "<written test>", "exec"), names)
    (function,) = (value for name, value in names.items() if name.startswith("test_"))
    return function  # type: ignore[no-any-return]
