"""Fixtures of the orchestrator's integration tests."""

import uuid

import pytest
from pydantic import SecretStr

from tests.conformance.conftest import SETTINGS, kafka_servers
from tests.integration.database_fixture import database_url, server
from tests.stack_fixture import ROOT
from towpath.settings import Settings, load_settings

__all__ = ["database_url", "kafka_servers", "server"]


@pytest.fixture
def settings(database_url: str, kafka_servers: str) -> Settings:
    """Return settings of the test's own project, whose views are in the test's own database."""
    read = load_settings(ROOT, environment=False)
    postgres = read.postgres.model_copy(update={"urls": {"views": SecretStr(database_url)}})
    kafka = read.kafka.model_copy(update={"bootstrap_servers": kafka_servers})
    project = read.project.model_copy(update={"name": f"t{uuid.uuid4().hex[:8]}"})
    return read.model_copy(update={"postgres": postgres, "kafka": kafka, "project": project, "stream": SETTINGS})
