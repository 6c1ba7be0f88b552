"""place_order in two versions: that of the reference project, and one that is as hasty as tests are."""
