"""How often each image is shown, so that ground truth and training have exactly the ratio asked for.

The user gives the ratio of ground truth to training and the shares of its sources; solved for is the multiply of each
source. An epoch shows images × multiply images of a folder on average: what is not a whole number carries over to the
next epochs, so that over a run each source has its share to within one image.
"""

from collections.abc import Mapping
from fractions import Fraction
from math import floor

from dreamloom.base.errors import UserError

DIGITS = 12
"""Decimals of a multiply in multiply.txt; exact up to 10¹² images."""


Count = int | Fraction


def solve_multiplies(
    training: Mapping[str, tuple[Count, float]], ground_truth: Mapping[str, tuple[Count, float]], ratio: float
) -> dict[str, Fraction]:
    """Computes each source's multiply, such that an epoch shows ratio × the training images it shows of ground truth.

    Args:
        training: Source → (images, multiply as the user set it). An image that is shown twice as often as the others
            of its source counts as two.
        ground_truth: Source → (images, share relative to the others'). A source without images has no share. Without
            any source, there is only training.
        ratio: Ground-truth images shown for each training image shown.

    Returns:
        Source → multiply, exact; see `format_multiply`. A multiply above 1 repeats images within an epoch.

    Raises:
        UserError: an epoch would draw no training image, or the sources of ground truth have no image.
    """
    multiplies = {name: exact(multiply) for name, (_, multiply) in training.items()}
    shown = sum((count * multiplies[name] for name, (count, _) in training.items()), Fraction(0))
    if shown < 1:
        raise UserError(
            "An epoch would show no training image; name a training source that has images, with a multiply that "
            "shows some."
        )
    if not ground_truth:
        return multiplies
    shares = {name: exact(share) if count else Fraction(0) for name, (count, share) in ground_truth.items()}
    if not any(shares.values()):
        raise UserError(
            f"No image of ground truth is left to balance with ({', '.join(ground_truth)}); see what was dropped "
            "and why, or add a source."
        )
    per_share = exact(ratio) * shown / sum(shares.values(), Fraction(0))
    return multiplies | {name: per_share * shares[name] / (count or 1) for name, (count, _) in ground_truth.items()}


def exact(value: float) -> Fraction:
    """Returns the number that a user wrote, to DIGITS: 0.1 is a tenth, not the binary fraction nearest to it."""
    return round(Fraction(str(value)), DIGITS)


def format_multiply(multiply: Fraction) -> str:
    """Formats a multiply for multiply.txt, rounded up at DIGITS, so that floor(images × multiply) stays exact."""
    scaled = -floor(-multiply * 10**DIGITS)
    return f"{scaled // 10**DIGITS}.{scaled % 10**DIGITS:0{DIGITS}d}".rstrip("0").rstrip(".")
