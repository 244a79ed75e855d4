"""Fast random numbers: 64-bit words in parallel lanes, and normals and chi variables made from them.

- Words: xoshiro256++ (Blackman, Vigna, *Scrambled linear pseudorandom number generators*, 2021), `LANES` copies with
  independent seeds side by side, so that the compiler can put them into vector registers.
- Normals: the ziggurat (Marsaglia, Tsang, *The ziggurat method for generating random variables*, 2000). The layer and
  the position in it come from different bits, which removes the method's known flaw (Doornik, 2005). With 1024 layers,
  99.7 % of the normals fall into the part of a layer that is certainly under the density, and need no branch. The
  others are accepted or drawn again one by one, with words of a separate stream.
- Chi variables: square roots of gamma variables by Marsaglia, Tsang, *A simple method for generating gamma variables*,
  2000.
"""

import math
from typing import Any

import numpy as np
from numba import float32, float64, int64, uint64, void
from numpy.typing import NDArray

from .compilation import compiled, inlined

Words = NDArray[np.uint64]

LANES = 32
"""Number of copies of the word generator."""

LAYERS = 1024
"""Number of layers of the ziggurat."""

TAIL = 4.038849846109505
"""Where the base layer ends and the tail begins, chosen so that the top layer ends at 0."""

CHUNK = 512
"""Number of normals made at a time, so that the words stay in the innermost cache."""

_STATE, _ONE, _ALL = uint64[:, ::1], np.uint64(0x3FF0000000000000), np.uint64(LAYERS - 1)


def _layers() -> NDArray[np.float64]:
    """Right ends x_0 > x_1 = TAIL > … > x_1024 = 0 of the layers, all of the same area under exp(−x²/2)."""
    density = math.exp(-(TAIL**2) / 2)
    area = TAIL * density + math.sqrt(math.pi / 2) * math.erfc(TAIL / math.sqrt(2))
    ends = np.zeros(LAYERS + 1)
    ends[0], ends[1] = area / density, TAIL
    for i in range(2, LAYERS):
        ends[i] = math.sqrt(-2 * math.log(area / ends[i - 1] + math.exp(-(ends[i - 1] ** 2) / 2)))
    return ends


ENDS = _layers()
HEIGHT = np.exp(-(ENDS**2) / 2)
WIDTH = ENDS[:-1].copy()
INSIDE = ENDS[1:] / ENDS[:-1]
"""Fraction of each layer that is entirely under the density."""


def new_state(key: np.random.SeedSequence) -> tuple[Words, Words]:
    """Return the states of the lanes, (4, LANES), and of the stream for rejected normals, (4, 1)."""
    words: Words = key.generate_state(4 * (LANES + 1), np.uint64).astype(np.uint64).reshape(4, LANES + 1)
    return words[:, :LANES].copy(), words[:, LANES:].copy()


@inlined
def _next(a: Words, b: Words, c: Words, d: Words, lane: int) -> Any:
    """The next word of one lane; a, b, c, d are the rows of the state."""
    word = a[lane] + d[lane]
    word = ((word << np.uint64(23)) | (word >> np.uint64(41))) + a[lane]
    shifted = b[lane] << np.uint64(17)
    c[lane] ^= a[lane]
    d[lane] ^= b[lane]
    b[lane] ^= c[lane]
    a[lane] ^= d[lane]
    c[lane] ^= shifted
    d[lane] = (d[lane] << np.uint64(45)) | (d[lane] >> np.uint64(19))
    return word


@compiled(void(_STATE, uint64[::1]))
def fill_words(state: Words, out: Words) -> None:
    """Fill with random 64-bit words; the unused words of the last round of lanes are discarded."""
    a, b, c, d = state[0], state[1], state[2], state[3]
    whole = out.size // LANES * LANES
    for start in range(0, whole, LANES):
        some = out[start : start + LANES]
        for lane in range(LANES):
            some[lane] = _next(a, b, c, d, lane)
    for lane in range(out.size - whole):
        out[whole + lane] = _next(a, b, c, d, lane)


@compiled(uint64(_STATE))
def _word(spare: Words) -> Any:
    """The next word of the separate stream."""
    return _next(spare[0], spare[1], spare[2], spare[3], 0)


@inlined
def _unit(word: Any) -> float:
    """The word as a number in (0, 1]."""
    return 1.0 - np.int64(word >> np.uint64(11)) * 2.0**-53


@compiled(float64(_STATE))
def _uniform(spare: Words) -> float:
    """The next uniform number in (0, 1] of the separate stream."""
    return _unit(_word(spare))


@compiled(float64(_STATE, float64, int64))
def _mended(spare: Words, x: float, layer: Any) -> float:
    """A normal where x fell outside the safe part of its layer: x itself if it is under the density, else a new one."""
    while True:
        if layer == 0:
            while True:
                beyond = -math.log(_uniform(spare)) / TAIL
                if -2 * math.log(_uniform(spare)) > beyond * beyond:
                    return math.copysign(TAIL + beyond, x)
        height = HEIGHT[layer] + _uniform(spare) * (HEIGHT[layer + 1] - HEIGHT[layer])
        if height < math.exp(-x * x / 2):
            return x
        word = _word(spare)
        layer = np.int64(word & _ALL)
        place = (word >> np.uint64(11)) * 2.0**-52 - 1.0
        x = place * WIDTH[layer]
        if abs(place) < INSIDE[layer]:
            return x


@compiled(void(_STATE, _STATE, float64[::1]), void(_STATE, _STATE, float32[::1]))
def fill_normals(state: Words, spare: Words, out: NDArray[Any]) -> None:
    """Fill with independent N(0, 1) numbers."""
    words = np.empty(CHUNK, np.uint64)
    bits = np.empty(CHUNK, np.uint64)
    numbers = bits.view(np.float64)
    outside = np.zeros(CHUNK, np.uint8)
    eights = outside.view(np.uint64)
    for start in range(0, out.size, CHUNK):
        some = out[start : start + CHUNK]
        fill_words(state, words[: some.size])
        for i in range(some.size):  # the upper 52 bits are the fraction of a number in [1, 2)
            bits[i] = (words[i] >> np.uint64(12)) | _ONE
        for i in range(some.size):
            layer = words[i] & _ALL
            place = 2 * numbers[i] - 3  # in [-1, 1)
            some[i] = place * WIDTH[layer]
            outside[i] = abs(place) >= INSIDE[layer]
        outside[some.size :] = 0
        for eight in range(eights.size):
            if eights[eight]:
                for i in range(8 * eight, 8 * eight + 8):
                    if outside[i]:
                        layer = words[i] & _ALL
                        x = (2 * numbers[i] - 3) * WIDTH[layer]
                        some[i] = _mended(spare, x, np.int64(layer))


@inlined
def _gamma_candidate(x: float, c: float, d: float) -> float:
    """The proposal d·(1 + c·x)³ of Marsaglia and Tsang for a gamma variable."""
    return d * (1 + c * x) * (1 + c * x) * (1 + c * x)


@compiled(void(_STATE, _STATE, float64, float64[:, ::1]))
def fill_chi(state: Words, spare: Words, freedom: float, out: NDArray[np.float64]) -> None:
    """Fill row i with independent χ_p numbers, p = `freedom` − i > 0."""
    words = np.empty(out.shape[1], np.uint64)
    normals = np.empty(out.shape[1])
    outside = np.empty(out.shape[1], np.uint8)
    again = np.empty(1)
    for row in range(out.shape[0]):
        some, p = out[row], freedom - row
        d = (p if p >= 2 else p + 2) / 2 - 1 / 3
        c = 1 / math.sqrt(9 * d)
        fill_words(state, words)
        fill_normals(state, spare, normals)
        for i in range(some.size):
            x, u = normals[i], _unit(words[i])
            gamma = _gamma_candidate(x, c, d)
            outside[i] = (u >= 1 - 0.0331 * (x * x) * (x * x)) | (gamma <= 0)
            some[i] = math.sqrt(abs(gamma + gamma))
        for i in range(some.size):
            if outside[i]:
                x, u = normals[i], _unit(words[i])
                gamma = _gamma_candidate(x, c, d)
                while gamma <= 0 or math.log(u) >= x * x / 2 + d - gamma + d * math.log(gamma / d):
                    fill_normals(state, spare, again)
                    x, u = again[0], _uniform(spare)
                    gamma = _gamma_candidate(x, c, d)
                some[i] = math.sqrt(gamma + gamma)
        if p < 2:
            for i in range(some.size):
                some[i] *= _uniform(spare) ** (1 / p)


@compiled(void(_STATE, _STATE, int64, float64, float64[:, :, ::1]))
def fill_bartlett(state: Words, spare: Words, full: int, freedom: float, out: NDArray[np.float64]) -> None:
    """Fill (rows, columns, samples) with `full` columns of normals, followed by a Bartlett factor.

    A Bartlett factor has normals below the diagonal, χ_{p−i} on it, p = `freedom`, and zeros above.
    """
    rows, columns, samples = out.shape
    chi = np.empty((min(rows, columns - full), samples))
    fill_chi(state, spare, freedom, chi)
    count = 0
    for i in range(rows):
        count += min(full + i, columns)
    normals = np.empty((count, samples))
    fill_normals(state, spare, normals.reshape(count * samples))
    used = 0
    for i in range(rows):
        inside = min(full + i, columns)
        out[i, :inside] = normals[used : used + inside]
        used += inside
        if inside < columns:
            out[i, inside] = chi[i]
            out[i, inside + 1 :] = 0
