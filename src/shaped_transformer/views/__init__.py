"""What turns a definition into draws: the network itself, its exact chain, and its limit."""
