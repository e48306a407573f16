"""Domains: the labelled parts of a data set, taken in turn, or only some of them.

- Several domains are read a few hundred documents at a time from each in turn, so a limit on what is read leaves all of
  them in.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from kancourse.lab.layouts import Example

_AT_A_TIME = 256  # documents of one domain, before the next


def in_turn(streams: Sequence[Iterator[Example]]) -> Iterator[Example]:
    """Some hundred documents of each stream in turn, until all have ended."""
    left = list(streams)
    while left:
        for stream in list(left):
            some = list(islice(stream, _AT_A_TIME)) if len(left) > 1 else stream
            yield from some
            if len(left) == 1 or len(some) < _AT_A_TIME:
                left.remove(stream)


def of_domains(
    examples: Iterable[Example], domains: Sequence[str] | None, name: str, *, known: Sequence[str] = ()
) -> Iterator[Example]:
    """Only the documents of these domains (None: all); "mathematica" takes "mathematica/algebra", too.

    Args:
        examples: of a data set.
        domains: labels, of which capitals do not matter.
        name: the data set's, for messages.
        known: labels it is known to have, where that is known before it is read.

    Raises:
        ValueError: a domain that nothing was found of; the message lists those there are.
    """
    if domains is None:
        yield from examples
        return
    missing = {domain.lower() for domain in domains}
    if known:
        for domain in sorted(missing):
            if not any(_within(label, {domain}) for label in known):
                raise _no_such(name, domain, known)
    wanted, seen = set(missing), set()
    for example in examples:
        seen.add(example.domain)
        if _within(example.domain, wanted):
            missing -= {domain for domain in missing if _within(example.domain, {domain})}
            yield example
    if missing:
        raise _no_such(name, sorted(missing)[0], seen)


def _within(label: str | None, wanted: set[str]) -> bool:
    label = (label or "").lower()
    return any(label == domain or label.startswith(f"{domain}/") for domain in wanted)


def _no_such(name: str, domain: str, there: Iterable[str | None]) -> ValueError:
    return ValueError(f"{name} has no domain {domain!r}; it has: {', '.join(sorted(filter(None, there))) or 'none'}")
