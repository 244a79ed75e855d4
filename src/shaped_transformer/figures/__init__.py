"""The figures: one file each, with `compute` (settings → dataset), `draw` (dataset → picture) and `headline` (numbers).

`catalogue` knows them by name; `presets/` holds their settings; `comparison` and `frontier` are the pictures of the
commands `compare`, `predict` and `advise`.
"""
