"""Adapters: where numbers come from (trainers) and where they go and come back from (trackers)."""
