"""State, history and partitions that older versions of Towpath left behind, decoded and continued."""
