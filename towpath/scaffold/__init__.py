"""Writes what a project begins with: `towpath new` a whole one, `towpath add` a part of one.

`records.py` writes Avro files and their examples, `parts.py` says which files a part consists of, `plan.py` which a
project does (all three pure: names in, paths and texts out); `writing.py` puts down what is missing and nothing else.
"""
