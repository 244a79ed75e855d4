"""The figures, one file each: `compute` (settings → dataset), `headline` (→ numbers), `plot` (→ picture).

`catalogue` finds them by name; `presets/` has their settings.
"""
