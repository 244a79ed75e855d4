"""Conclusions from samples of a design: verdict, stability, advice, comparison of the views, sweeps."""
