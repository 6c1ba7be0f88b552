"""Writing in transactions."""
