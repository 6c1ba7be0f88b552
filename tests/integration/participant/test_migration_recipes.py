"""The recipes of docs/migrations.md, run: Alembic's and Django's own programs beside Towpath's tables."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo

from tests.stack_fixture import ROOT

pytestmark = pytest.mark.stack
PAGE = (ROOT / "docs" / "migrations.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```python (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
AT_ONCE = 2

REVISION = '''"""totals"""
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade():
    op.create_table("orders", sa.Column("order_id", sa.Text, primary_key=True), sa.Column("cents", sa.BigInteger))
'''
MODELS = """
from django.db import models


class Order(models.Model):
    order_id = models.TextField(primary_key=True)
    cents = models.BigIntegerField()

    class Meta:
        app_label = "orders"
        db_table = "orders"
"""
MIGRATION = """
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("order_id", models.TextField(primary_key=True, serialize=False)),
                ("cents", models.BigIntegerField()),
            ],
            options={"db_table": "orders"},
        )
    ]
"""
DJANGO = """
import os
INSTALLED_APPS = ["orders"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""

Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def program(tmp_path: Path, database_url: str, connection: psycopg.Connection) -> Program:
    """Return what runs a Python module in a project whose order service has the test's database, with an outbox."""
    parts = {key: str(value) for key, value in conninfo.conninfo_to_dict(database_url).items()}
    address = f"{parts['host']}:{parts['port']}"
    url = f"postgresql://{parts.get('user', '')}@{address}/{parts['dbname']}"
    shutil.copytree(ROOT / "examples" / "trip_booking" / "schemas", tmp_path / "schemas")
    (tmp_path / "towpath.toml").write_text(
        f'[project]\nname = "recipe"\n[postgres.urls]\norder = "{url}"\n', encoding="utf-8"
    )
    connection.commit()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TOWPATH_")}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path,
            env={**plain, "PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "settings"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


def at_once(program: Program, *arguments: str) -> None:
    """Run a program several times side by side: each must succeed."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in pool.map(lambda _: program(*arguments), range(AT_ONCE)):
            assert done.returncode == 0, done.stdout + done.stderr


def tables(connection: psycopg.Connection) -> set[str]:
    found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    connection.commit()
    return {name for (name,) in found}


def test_alembic_migrates_beside_the_outbox(tmp_path: Path, program: Program, connection: psycopg.Connection) -> None:
    """Once, whoever comes at the same time; and its comparison does not want to drop what is Towpath's."""
    before = tables(connection)
    assert "outbox" in before
    versions = tmp_path / "alembic" / "versions"
    versions.mkdir(parents=True)
    (versions / "0001_totals.py").write_text(REVISION, encoding="utf-8")
    metadata = (
        "import sqlalchemy as sa\ntarget_metadata = sa.MetaData()\n"
        'sa.Table("orders", target_metadata, sa.Column("order_id", sa.Text, primary_key=True), '
        'sa.Column("cents", sa.BigInteger))\n'
    )
    env = re.sub(r"^target_metadata = None.*$", metadata, BLOCKS["env.py"], flags=re.MULTILINE)
    (tmp_path / "alembic" / "env.py").write_text(env, encoding="utf-8")
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/alembic\n", encoding="utf-8")
    at_once(program, "alembic", "upgrade", "head")
    assert tables(connection) == before | {"orders", "alembic_version"}
    done = program("alembic", "check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_django_migrates_beside_the_outbox(tmp_path: Path, program: Program, connection: psycopg.Connection) -> None:
    """Once, whoever comes at the same time; `migrate --check` says that nothing is left."""
    before = tables(connection)
    (tmp_path / "settings.py").write_text(BLOCKS["settings.py"] + DJANGO, encoding="utf-8")
    commands = tmp_path / "orders" / "management" / "commands"
    commands.mkdir(parents=True)
    for folder in (tmp_path / "orders", commands.parent, commands):
        (folder / "__init__.py").touch()
    (tmp_path / "orders" / "models.py").write_text(MODELS, encoding="utf-8")
    (commands / "migrate_alone.py").write_text(BLOCKS["migrate_alone.py"], encoding="utf-8")
    migrations = tmp_path / "orders" / "migrations"
    migrations.mkdir()
    (migrations / "__init__.py").touch()
    (migrations / "0001_initial.py").write_text(MIGRATION, encoding="utf-8")
    at_once(program, "django", "migrate_alone")
    assert tables(connection) == before | {"orders", "django_migrations"}
    assert program("django", "migrate", "--check").returncode == 0
