"""The look that all figures share: one colour per view, safe for colour-blind readers (Okabe and Ito)."""

COLOURS = {"network": "#333333", "chain": "#0072B2", "sde": "#D55E00"}
LABELS = {"network": "real networks", "chain": "exact chain", "sde": "SDE (limit)"}
