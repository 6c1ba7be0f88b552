"""place_order in two versions: that of the reference project, and one that looks at the customer once more."""
