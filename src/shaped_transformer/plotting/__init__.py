"""What all pictures share, and the pictures of the commands `compare`, `predict`, `advise` and `sweep`."""
