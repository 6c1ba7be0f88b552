"""The documentation site: it builds strictly, and its reference leaves nothing out."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel

from infra.docs import reference
from infra.docs.error_classes import KEPT_AND_NEXT, error_classes
from tests.tidy.test_advice import commands_in, problem_of
from towpath import cli, metrics
from towpath.outbox.message import HEADER_COLUMNS
from towpath.settings import Settings

ROOT = Path(__file__).resolve().parents[3]


def test_the_site_builds_without_a_broken_link(tmp_path: Path) -> None:
    """Pages, anchors and the names of the Python reference: MkDocs' strict mode fails on each that is not there."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env={"NO_MKDOCS_2_WARNING": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    python = (tmp_path / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    for module, name in (("saga", "Saga"), ("participant", "handle_each"), ("view", "View"), ("client", "AsyncClient")):
        assert f'id="towpath.{module}.{name}"' in python
    assert (tmp_path / "llms.txt").read_text(encoding="utf-8").count("http") == 0


def test_every_setting_is_on_its_page() -> None:
    """With its section, by its own name."""
    text = reference.settings_page()
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            assert f"## `[{name}]`" in text
            for key, one in section.model_fields.items():
                assert f"| `{key}` |" in text
                assert one.description, f"[{name}] {key} says nothing about itself"


def test_every_verb_is_on_its_page() -> None:
    """Those of groups, too."""
    text = reference.cli_page()
    command = typer.main.get_command(cli.app)
    groups = getattr(command, "commands", {})
    assert groups
    for name, verb in groups.items():
        assert f"## `towpath {name}`" in text
        for inner in getattr(verb, "commands", {}):
            assert f"`towpath {name} {inner}`" in text


def test_every_metric_is_on_its_page() -> None:
    """By the name that Prometheus sees."""
    text = reference.metrics_page()
    names = [one._name for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)]
    assert names
    for name in names:
        assert f"`{name}" in text


def test_every_header_is_explained() -> None:
    """And nothing that is no header."""
    assert set(reference.HEADERS) == {*HEADER_COLUMNS, "id"}


def test_every_error_of_the_engine_is_in_the_catalogue() -> None:
    """Whoever raises it, by its class; most say what to do next."""
    places = reference.raised()
    assert {"ConfigurationError", "ContractError", "RefusedError", "WorldError"} <= {one.kind for one in places}
    assert len(places) > 150
    assert sum(bool(one.next_step) for one in places) > len(places) * 0.7
    text = reference.errors_page()
    for one in places:
        assert reference._plain(one.cause).replace("|", "\\|").replace("\n", " ") in text


def test_each_class_of_errors_says_what_is_kept_and_what_to_run() -> None:
    """All that there are, and none that is gone; the commands exist, with the arguments that they are told with."""
    assert set(KEPT_AND_NEXT) == {kind.__name__ for kind in error_classes()}
    text = reference.errors_page()
    for kind in error_classes():
        assert (kind.__doc__ or "").strip(), kind
        assert f"| `{kind.__name__}` | {kind.__module__.split('.')[1]} |" in text
    for kept, step in KEPT_AND_NEXT.values():
        assert kept
        assert step
        for words in commands_in(step):
            assert problem_of(words) is None, step


@pytest.mark.parametrize("text", ["a | b", "<name> [x] *y* _z_", "`towpath up`"])
def test_what_an_error_says_is_no_markup(text: str) -> None:
    """Its brackets and backticks are shown as they are."""
    plain = reference._plain(text)
    assert "<" not in plain
    assert plain.count("\\") >= sum(text.count(sign) for sign in "`*_[")
