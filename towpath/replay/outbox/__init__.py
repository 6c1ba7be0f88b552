"""Replaying what a service wrote into its outbox, where topics have let it expire."""
