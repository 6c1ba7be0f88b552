"""A small project whose names are its own, so that tests share a broker and a registry without meeting."""

from pathlib import Path
from typing import Any

from tests.unit.contract.workshop import Workshop, field
from towpath.contract.catalogue import Catalogue
from towpath.settings import Settings


class Shop(Workshop):
    """A project with one record, `OrderPlaced`, in the topic `<name>.events`."""

    def __init__(self, folder: Path, settings: Settings, name: str) -> None:
        super().__init__(folder)
        self.settings = settings
        self.name = name
        self.record = f"shop.{name}.OrderPlaced"
        self.topic_name = f"{name}.events"
        self.define(field("order_id"), field("total", "int"))
        self.topic()

    def define(self, *fields: dict[str, Any], version: int | None = None) -> None:
        """Write the record, as it is today or as a released version."""
        avro = {"type": "record", "name": "OrderPlaced", "namespace": f"shop.{self.name}", "fields": list(fields)}
        self.put(avro, version=version)

    def topic(self, more: str = "", *, partitions: int = 3, retention_days: int = 30) -> None:
        """Write the topic."""
        path = self.folder / "topics" / f"{self.topic_name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f"topic: {self.topic_name}\nkind: events\nowner: {self.name}\nkey: order_id\npartitions: {partitions}\n"
            f"retention_days: {retention_days}\nvalues: [{self.record}]\nproducers: [order]\nconsumers: [view]\n{more}",
            encoding="utf-8",
        )

    def catalogue(self) -> Catalogue:
        """Read the topics."""
        return Catalogue.read(self.folder / "topics")
