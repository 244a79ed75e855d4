"""The figures: one file each, which draws a saved dataset. Matplotlib is imported when a figure is drawn."""
