"""Two versions of a view compared, row by row, at one offset vector."""
