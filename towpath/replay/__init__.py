"""What has happened, once more: what a changed definition would have decided over recorded runs. Nothing is sent."""
