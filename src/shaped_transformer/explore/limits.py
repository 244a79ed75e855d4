"""What the page draws at most: it is for designs that are drawn while one looks on."""

from ..design.architecture import Architecture
from ..errors import InputError, counted

MOST_TOKENS = 64
"""Most tokens of an input."""
MOST_TEXT = 2000
"""Most characters of a pasted text."""
MOST_NUMBERS = 1e9
"""Most numbers that one path of the chain may take: about two seconds on one core."""
FIRST_NUMBERS = 1e8
"""Numbers of a first batch, so that its picture is there in an instant."""
BATCH = 64
"""Largest number of paths in a batch."""
ALL_NUMBERS = 3e9
"""Numbers that all paths of a design take at most: some ten seconds."""
ALL_KEPT = 5e6
"""Entries of V that are kept of all paths of a view: 40 MB."""
MOST_PATHS = 2048
"""Most paths of a design."""
FEWEST_PATHS = 64
"""Fewest paths of a design, however large, so that there is a verdict."""
NETWORK_NUMBERS = 2e9
"""Numbers that all real networks together take at most: some ten seconds."""
MOST_NETWORKS = 128
"""Most real networks."""
NETWORK_BATCH = 8
"""Largest number of real networks in a batch."""
FEWEST_NETWORKS = 4
"""Fewest real networks that are worth a picture."""
MOST_CHANGED, CHANGED_NUMBERS = 256, 3e9
"""Paths of each changed network, and the most numbers that they take."""
MOST_TESTED, TEST_NUMBERS = 512, 1e10
"""Most paths of a test of the advice, and the most numbers that they take."""
MOST_REQUEST = 64 * 1024
"""Bytes of a request."""
RECORDS = 21
"""Recorded layers, for the curves against depth."""


def check_text(text: str) -> str:
    """Return a pasted text.

    **Raises:** `InputError` if it is too long.
    """
    if len(text) > MOST_TEXT:
        raise InputError(
            f"the text must have at most {counted(MOST_TEXT, 'character')} (got {len(text):,}): paste a part of it, of "
            "which the first words are the tokens"
        )
    return text


def numbers_of_path(architecture: Architecture, tokens: int) -> float:
    """Return about how many numbers a path of the chain takes: it says how long one lasts.

    **Arguments:**

    - `architecture`: the network.
    - `tokens`: their number m.
    """
    n = architecture.width
    layers = sum(max(n, layer.hidden_width_of(n)) + tokens for layer in architecture.block)
    return float(architecture.depth * tokens**2 * layers)


def numbers_of_network(architecture: Architecture, tokens: int) -> float:
    """Return about how many numbers a real network takes: its weights, which meet each token.

    **Arguments:** as in `numbers_of_path`.
    """
    n = architecture.width
    weights = architecture.depth * sum(n * layer.largest_weight(n) for layer in architecture.block)
    return float(weights * (1 + tokens / 16))  # a random number takes the time of some sixteen products


def check_size(architecture: Architecture, tokens: int) -> None:
    """Check that a network is small enough to be drawn while one looks on.

    **Raises:** `InputError` if it is not.
    """
    if tokens > MOST_TOKENS:
        raise InputError(
            f"this page draws at most {MOST_TOKENS} tokens (got {tokens:,}): the command predict draws more"
        )
    numbers = numbers_of_path(architecture, tokens)
    if numbers > MOST_NUMBERS:
        raise InputError(
            f"a path of {counted(tokens, 'token')} through depth {architecture.depth:,} and width "
            f"{architecture.width:,} takes {numbers:.1g} numbers, and this page draws paths of at most "
            f"{MOST_NUMBERS:.0g}: choose fewer tokens, a smaller depth or width, or the command predict"
        )


def batch_for(architecture: Architecture, tokens: int) -> int:
    """Return the number of paths in a batch; the first picture is that of one."""
    return int(min(BATCH, max(1, FIRST_NUMBERS / numbers_of_path(architecture, tokens))))


def paths_for(architecture: Architecture, tokens: int) -> int:
    """Return the number of paths after which a picture is not refined any more."""
    paths = min(MOST_PATHS, ALL_KEPT / (RECORDS * tokens**2))
    return int(max(FEWEST_PATHS, min(paths, ALL_NUMBERS / numbers_of_path(architecture, tokens))))


def networks_for(architecture: Architecture, tokens: int) -> int:
    """Return the number of real networks that are drawn.

    **Arguments:** as in `numbers_of_path`.

    **Raises:** `InputError` if they are too large.
    """
    count = NETWORK_NUMBERS / numbers_of_network(architecture, tokens)
    if count < FEWEST_NETWORKS:
        raise InputError(
            f"real networks of width {architecture.width:,} and depth {architecture.depth:,} are too large for this "
            "page: the command compare draws them"
        )
    return int(min(count, MOST_NETWORKS))


def changed_for(architecture: Architecture, tokens: int) -> int:
    """Return the number of paths of each changed network, from which the effects of parameters are measured; 0: none.

    **Arguments:** as in `numbers_of_path`.
    """
    affordable = CHANGED_NUMBERS / numbers_of_path(architecture, tokens)
    return MOST_CHANGED if affordable >= MOST_CHANGED else 0


def tested_for(architecture: Architecture, tokens: int) -> int:
    """Return the most paths of a test of the advice.

    **Arguments:** as in `numbers_of_path`.
    """
    return int(min(MOST_TESTED, TEST_NUMBERS / numbers_of_path(architecture, tokens)))
