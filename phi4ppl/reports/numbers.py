"""Numbers with their errors, as physicists print them: 0.6480(44)."""

from __future__ import annotations

import math

__all__ = ["in_columns", "rounded", "value_with_error"]


EXACT = 1e-12  # relative errors below it are those of rounding


def value_with_error(value: float, error: float) -> str:
    """A value to the last of two significant digits of its error, which stand in parentheses.

    If the error is 0 (an exact value) or not finite, the value has six significant digits; an error that is not finite is
    shown. Magnitudes below 10⁻⁴, and of 10⁶ or more, are in scientific notation.

    Parameters
    ----------
    value, error : float
        A number and its standard error, which is not negative.

    Examples
    --------
    >>> [value_with_error(0.64801, 0.00441), value_with_error(-12.3, 45.6), value_with_error(3.0, 0.0)]
    ['0.6480(44)', '-12(46)', '3']
    >>> [value_with_error(1.23456e-8, 9.96e-11), value_with_error(0.5, math.nan)]
    ['1.235(10)e-08', '0.5(nan)']
    """
    value, error = float(value), float(error)
    if not math.isfinite(error):
        return f"{value:.6g}({error})"
    if error <= EXACT * abs(value) or not math.isfinite(value):
        return f"{value:.6g}"
    size = max(abs(value), error)
    power = math.floor(math.log10(size))
    if not -4 <= power < 6:
        return f"{_parenthesized(value / 10.0**power, error / 10.0**power)}e{power:+03d}"
    return _parenthesized(value, error)


def rounded(value: float, spread: float) -> str:
    """A value to the last of two significant digits of a spread, such as the end of an interval.

    Examples
    --------
    >>> [rounded(0.483912, 0.1213), rounded(0.1213, 0.1213), rounded(1234.5, 40.0), rounded(2.5e-7, 1e-7)]
    ['0.48', '0.12', '1234', '2.5e-07']
    """
    value, spread = float(value), float(spread)
    if not (math.isfinite(value) and math.isfinite(spread) and spread > 0 and 1e-4 <= max(abs(value), spread) < 1e6):
        return f"{value:.3g}"
    return f"{value:.{max(0, _decimals(spread))}f}"


def _decimals(error: float) -> int:
    """Places after the decimal point of the last of two significant digits of an error."""
    return 1 - math.floor(math.log10(float(f"{error:.1e}")))


def in_columns(value: float, error: float) -> tuple[str, str]:
    """The same two numbers for two columns of a table: the error with two digits, the value to the last of them.

    Examples
    --------
    >>> in_columns(0.64801, 0.00441), in_columns(-1234.4, 45.6), in_columns(3.0, 0.0)
    (('0.6480', '0.0044'), ('-1234', '46'), ('3', '0'))
    >>> in_columns(1.23456e-8, 9.96e-11), in_columns(0.5, math.nan)
    (('1.235e-08', '1.0e-10'), ('0.5', 'nan'))
    """
    value, error = float(value), float(error)
    if not math.isfinite(error) or not math.isfinite(value) or error == 0:
        return f"{value:.6g}", f"{error:.2g}"
    size = max(abs(value), error)
    power = math.floor(math.log10(size))
    decimals = _decimals(error)
    if not -4 <= power < 6:
        digits = max(power + decimals, 0)
        return f"{value:.{digits}e}", f"{error:.1e}"
    return f"{round(value, decimals):.{max(decimals, 0)}f}", f"{round(error, decimals):.{max(decimals, 0)}f}"


def _parenthesized(value: float, error: float) -> str:
    decimals = _decimals(error)
    if decimals <= 0:
        return f"{round(value, decimals):.0f}({round(error, decimals):.0f})"
    if error >= 1:  # 12.3(4.5): the decimal point stands in the error as well
        return f"{value:.{decimals}f}({error:.{decimals}f})"
    return f"{value:.{decimals}f}({round(error * 10**decimals):.0f})"
