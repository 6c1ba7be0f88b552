"""Testing sagas: conversations with virtual time, golden histories, random adversaries (`testing.adversary`).

Rule: nothing here draws lots or reads a clock. `adversary` alone imports Hypothesis, so the rest needs no test library.
"""

from towpath.saga.testing.conversation import Conversation, given
from towpath.saga.testing.golden import HistoryChanged, history_of, inputs_of, read_history, replay, write_history
from towpath.saga.testing.samples import sample
from towpath.saga.testing.world import Move, World

__all__ = [
    "Conversation",
    "HistoryChanged",
    "Move",
    "World",
    "given",
    "history_of",
    "inputs_of",
    "read_history",
    "replay",
    "sample",
    "write_history",
]
