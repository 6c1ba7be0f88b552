"""The long form of tests that have a short one in CI: minutes, not seconds."""
