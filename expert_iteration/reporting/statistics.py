"""How sure an accuracy is."""

import math

Z_95 = 1.959963984540054
"""Two-sided 95% quantile of the normal distribution."""


def wilson(share: float, n: int) -> tuple[float, float]:
    """95% score interval of a share of successes among n trials (Wilson 1927, JASA 22).

    Unlike the normal approximation it stays inside [0, 1] and is honest at 0% and at 100%.

    Raises:
        ValueError: if `share` is outside [0, 1] or `n` is not positive.
    """
    if n <= 0 or not 0.0 <= share <= 1.0:
        raise ValueError(f"wilson: need a share in [0, 1] and n >= 1, got share={share}, n={n}.")
    squared = Z_95**2
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    margin = Z_95 / (1 + squared / n) * math.sqrt(share * (1 - share) / n + squared / (4 * n * n))
    return max(0.0, centre - margin), min(1.0, centre + margin)
