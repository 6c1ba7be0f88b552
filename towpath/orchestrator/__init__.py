"""Runs sagas on the log: loads an instance, asks the machine, performs what it decides, all in one unit of work.

`envelope.py` and `mapping.py` translate between the machine and the wire; `core.py` handles one record, with
`instances.py`, `chains.py`, `buffered_signals.py` and `performer.py` for what it keeps and does (all pure); `agent.py`
takes the batches from Kafka.
"""
