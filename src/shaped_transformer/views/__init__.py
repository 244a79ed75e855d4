"""The three views of a definition, from which samples are drawn: the network itself, its exact chain, and its limit."""
