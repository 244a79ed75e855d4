"""Whether heads fit the width: the same check and message for definitions, modules and configurations."""

LARGEST_LISTED = 64
"""Largest number of heads that the message offers."""


def heads_problem(
    heads: int, width: int, key_width: int | None, value_width: int | None, *, name: str = "width"
) -> str | None:
    """Return why heads do not fit the width, and which heads or widths do; `None` if they fit.

    **Arguments:**

    - `heads`: number of heads H.
    - `width`: width n.
    - `key_width`, `value_width`: of one head; `None` stands for n // H, which needs heads that divide the width.
    - `name`: how the user calls the width, default `"width"`.
    """
    if width % heads == 0 or (key_width is not None and value_width is not None):
        return None
    *others, last = [str(h) for h in range(1, min(width, LARGEST_LISTED) + 1) if width % h == 0]
    divisors = f"one of {', '.join(others)} or {last} heads" if others else "1 head"
    below = width // heads * heads
    widths = f"{below} or {below + heads}" if below else str(heads)
    return (
        f"{heads} heads do not divide the width {width}: use {divisors}, or {name} {widths}, or give key_width and "
        "value_width"
    )
