"""The contracts of the project: topics, Avro files, examples, and the record classes generated from them."""
