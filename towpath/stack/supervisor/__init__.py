"""The process that runs a stack's processes, and how it is spoken to."""
