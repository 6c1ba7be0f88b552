"""`towpath add`: what it takes from the files of a project."""

import json
from pathlib import Path

from towpath.cli.add import _fields, _Known
from towpath.scaffold.plan import project_files
from towpath.scaffold.writing import write_missing
from towpath.settings import load_settings


def test_of_two_records_in_one_file_the_one_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    """A record whose name ends with another's is another record."""
    write_missing(tmp_path, project_files("myshop", "0.1.0"))
    records = [
        {"type": "record", "name": name, "namespace": "myshop.payment", "fields": [{"name": field, "type": "string"}]}
        for name, field in (("PreAuthorise", "before"), ("Authorise", "amount"))
    ]
    (tmp_path / "schemas" / "avro" / "payment" / "both.avsc").write_text(json.dumps(records), encoding="utf-8")
    known = _Known.of(load_settings(tmp_path, environment=False))
    (field,) = _fields(known, "myshop.payment.Authorise", {"myshop.payment.Authorise": [{"amount": "9"}]})
    assert (field.name, field.type, field.example) == ("amount", "string", "9")
