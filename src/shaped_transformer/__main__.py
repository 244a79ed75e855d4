"""`python -m shaped_transformer` is the command `shaped-transformer`."""

from .cli import main

main()
