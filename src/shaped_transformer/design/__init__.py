"""What a network is: definitions that are frozen, checked when built, and round-trip through JSON."""
