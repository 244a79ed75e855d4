"""Arrays and random numbers: batched linear algebra, compiled kernels, generators. Nothing here refers to a network."""
