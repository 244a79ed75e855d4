"""Random matrices known only by what they have met, from pure functions to the trained weight of a model."""
