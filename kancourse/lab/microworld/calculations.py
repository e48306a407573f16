"""Calculations such as `3 + 2` and `(4 - 1) * 6`: drawn at random within a level's range, and worked out.

A calculation is a shape, in which `n` stands for each number, and its numbers: `("n + n", (3, 2))`.
"""

from kancourse.lab.microworld.engine import Writer
from kancourse.lab.microworld.sum_phrases import SHAPES

RANGE = {1: (6, 3, 9), 2: (40, 40, 99), 3: (200, 200, 999)}  # largest first number, largest other, largest result


def result(shape: str, numbers: tuple[int, ...]) -> int | None:
    """The value of a calculation; None when a division leaves a rest or is by zero."""
    if not numbers:
        return None
    first, *others = numbers
    signs = [sign for sign in shape if sign in "+-*/"]
    if signs == ["+", "*"] and "(" not in shape:  # products first
        return first + others[0] * others[1]
    for sign, number in zip(signs, others, strict=True):
        if sign == "/":
            if number == 0 or first % number:
                return None
            first //= number
        else:
            first = first + number if sign == "+" else first - number if sign == "-" else first * number
    return first


def draw_calculation(w: Writer, level: int) -> tuple[str, tuple[int, ...]]:
    """A calculation of a level: its shape, then its numbers `n0`, `n1`… one by one, so that every result fits."""
    shape = w.pick("shape", [shape for shape, known in SHAPES.items() if known <= level])
    start, other, largest = RANGE[level]
    if shape == "n * n":
        return shape, (w.pick("n0", range(2, 10)), w.pick("n1", range(2, 10)))
    if shape == "n / n":
        first = w.pick("n0", [number for number in range(4, 82) if _small_divisors(number)])
        return shape, (first, w.pick("n1", _small_divisors(first)))
    if "*" in shape:  # small numbers, since they are multiplied
        start, other, largest = 10, 10, 20
    numbers: list[int] = []
    so_far = 0
    for i, sign in enumerate(("+", *(sign for sign in shape if sign in "+-*"))):
        if sign == "*":
            numbers.append(w.pick(f"n{i}", range(2, 10)))
        elif i == 0:
            low = 1 + shape.count("-")
            numbers.append(w.pick("n0", range(low, (start * 3 // 2 if low > 1 else start) + 1)))
            so_far = numbers[0]
        else:
            room = largest - so_far if sign == "+" else so_far - 1
            later_minus = shape.count("-") if sign == "-" else 0
            numbers.append(w.pick(f"n{i}", range(1, max(min(other, room - max(later_minus - i, 0)), 1) + 1)))
            so_far += numbers[-1] if sign == "+" else -numbers[-1]
    return shape, tuple(numbers)


def _small_divisors(number: int) -> list[int]:
    """One-digit divisors with a one-digit quotient, both above 1."""
    return [divisor for divisor in range(2, 10) if number % divisor == 0 and 1 < number // divisor < 10]
