"""Plots: their common style, the parts that several share, and the pictures of commands."""
