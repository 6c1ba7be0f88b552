"""Where scratch databases are made: at a URL, or on the server of the stack; and what is said where none answers."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.stack_fixture import free_ports
from towpath.errors import WorldError
from towpath.settings import PostgresSettings, ProjectSettings, Settings
from towpath.testing import ScratchServer
from towpath.testing.postgres import server_url


@pytest.mark.parametrize(
    ("url", "password", "wanted"),
    [
        ("postgresql://me@127.0.0.1:5432", None, "postgresql://me@127.0.0.1:5432"),
        ("postgresql://me@127.0.0.1:5432", "a/b@c", "postgresql://me:a%2Fb%40c@127.0.0.1:5432"),
        ("postgresql://me:known@127.0.0.1:5432", "other", "postgresql://me:known@127.0.0.1:5432"),
    ],
)
def test_the_stacks_server_is_taken_with_its_password(
    tmp_path: Path, url: str, password: str | None, wanted: str
) -> None:
    """As the project's settings have it, in the form that any client takes."""
    secret = None if password is None else SecretStr(password)
    settings = Settings(
        root=tmp_path, project=ProjectSettings(name="shop"), postgres=PostgresSettings(url=url, password=secret)
    )
    assert server_url(settings) == wanted


def test_a_server_that_is_not_there_is_named_with_the_next_command() -> None:
    """`towpath up` runs one."""
    with pytest.raises(WorldError, match="cannot be reached") as error:
        ScratchServer(f"postgresql://me@127.0.0.1:{free_ports(1)[0]}")
    assert "pytest --towpath-postgres up" in str(error.value)
