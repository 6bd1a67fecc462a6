"""What an explorable says: θ and points, in words and numbers as a reader would put them."""

import math
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal


def describe(theta: Sequence[Sequence[float]], size: Sequence[int] = (1, 1)) -> str:
    """Say in words what θ does to a picture, as it is seen on the screen.

    Scale, slant, turn and shift, in this order, from the same factors as `affine.decompose`; of a
    mirrored picture, the mirror that leaves the smaller turn.

    Args:
        theta: 2×3 numbers, normalised, output to input.
        size: (H, W) of the picture; only its proportions matter.
    """
    (a, b, tx), (c, d, ty) = theta
    det = a * d - b * c
    if not abs(det) > 2**-52 * (abs(a * d) + abs(b * c)):
        if a == b == c == d == 0:
            return "Every output pixel reads one and the same point of the input."
        return "Every output pixel reads from one line of the input: this map has no inverse."
    right = -(d * tx - b * ty) / det
    down = -(a * ty - c * tx) / det
    # As it is seen: a normalised unit is W/2 pixels wide and H/2 pixels high.
    height, width = size
    b, c = b * width / height, c * height / width
    det = a * d - b * c
    p, q, r, s = d / det, -b / det, -c / det, a / det
    parts = []
    if p * s - q * r < 0:
        if p < -1e-9:
            p, r = -p, -r
            parts.append("mirrored left to right")
        else:
            q, s = -q, -s
            parts.append("mirrored top to bottom")
    sx = math.hypot(p, r)
    sy = (p * s - q * r) / sx
    slant = (p * q + r * s) / sx / sy
    degrees = math.degrees(math.atan2(-r, p))
    side = "bottom to the right" if slant > 0 else "bottom to the left"
    if abs(q) < 1e-9 and p > 0 and s > 0:
        # A downward slant alone, which would otherwise be told as a turn and two more changes.
        sx, sy, slant, degrees = p, s, r / p, 0.0
        side = "right side down" if slant > 0 else "right side up"
    wide, high = fixed(sx), fixed(sy)
    if wide == high != "1":
        parts.append(f"made {_times(wide)} as large")
    elif wide != high:
        sides = [f"{_times(wide)} as wide"] * (wide != "1")
        sides += [f"{_times(high)} as high"] * (high != "1")
        parts.append("made " + " and ".join(sides))
    if fixed(slant) != "0":
        parts.append(f"slanted by {fixed(slant)} ({side})")
    turn = fixed(degrees, 1)
    if turn == "180":
        parts.append("turned 180°")
    elif turn != "0":
        parts.append(f"turned {turn}° {'counter-clockwise' if degrees > 0 else 'clockwise'}")
    moves = []
    if fixed(right) != "0":
        moves.append(f"{'right' if right > 0 else 'left'} by {fixed(right)}")
    if fixed(down) != "0":
        moves.append(f"{'down' if down > 0 else 'up'} by {fixed(down)}")
    if moves:
        parts.append("moved " + " and ".join(moves))
    if not parts:
        return "The picture stays as it is."
    *most, last = parts
    return f"The picture is {', '.join(most)}{' and ' if most else ''}{last}."


def fixed(value: float, places: int = 2) -> str:
    """The size of a number without its sign: halves away from zero, as JavaScript rounds."""
    size = abs(value)
    if size >= 1e21:
        return repr(size)
    text = str(Decimal(size).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))
    return text.rstrip("0").rstrip(".")


def _times(factor: str) -> str:
    words = {
        "0": "less than 0.01 times",
        "2": "twice",
        "0.5": "half",
        "0.33": "a third",
        "0.25": "a quarter",
    }
    return words.get(factor, f"{factor} times")


def percent(share: float) -> str:
    """Write a share, 0 to 1, in whole per cent: halves away from zero, as JavaScript rounds."""
    text = str(Decimal(100 * share).quantize(Decimal(1), ROUND_HALF_UP))
    return "less than 1 %" if text == "0" else f"{text} %"


def signed(value: float) -> str:
    """Write a number to two places, with a true minus sign."""
    text = fixed(value)
    return f"−{text}" if value < 0 and text != "0" else text
