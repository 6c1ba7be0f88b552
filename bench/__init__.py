"""What it costs, side by side with peers. Never part of the tests: a busy machine would fail them."""
