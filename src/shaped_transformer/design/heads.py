"""The message for heads that do not divide the width, the same for definitions, modules and configurations."""

LARGEST_LISTED = 64
"""Largest number of heads that the message offers."""


def undivided_width(heads: int, width: int, name: str = "width") -> str:
    """Return what is wrong, and which heads or widths fit instead.

    **Arguments:**

    - `heads`: number of heads H.
    - `width`: width n, which they do not divide.
    - `name`: how the user calls the width, default `"width"`.
    """
    *others, last = [str(h) for h in range(1, min(width, LARGEST_LISTED) + 1) if width % h == 0]
    divisors = f"one of {', '.join(others)} or {last} heads" if others else "1 head"
    below = width // heads * heads
    widths = f"{below} or {below + heads}" if below else str(heads)
    return (
        f"{heads} heads do not divide the width {width}: use {divisors}, or {name} {widths}, or give "
        "key_width and value_width"
    )
