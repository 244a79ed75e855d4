"""Files and folders: atomic writing, locks, provenance, progress bars, YAML."""
