"""Arrays and random numbers: batched linear algebra, compiled kernels, generators. It knows no network."""
