"""What a document of sums remembers: who has how many, how that came about, and what is to be said next."""

from kancourse.lab.microworld.sum_phrases import BOOK


class Sums:
    """A document so far: the people of the current problem with what they have, and what is to be said next."""

    __slots__ = (
        "changes", "container", "done", "item", "level", "near", "owners", "question", "say", "since", "stage", "step",
        "term", "terms",
    )  # fmt: skip

    def __init__(self, level: int):
        self.level, self.say = level, BOOK.at(level)
        self.step = 0
        self.stage = "start"  # start, calculations, problem, boxes, price, ready, asked, worked or finished
        self.done = 0  # calculations or problems finished
        self.new_problem()
        self.term: tuple[str, tuple[int, ...]] = ("n", (0,))  # the calculation that answers the question
        self.question = ("", "")  # kind asked (or to be asked), about whom

    def new_problem(self) -> None:
        self.item, self.container = "", ""
        self.changes = 0  # events in this problem
        self.owners: dict[str, int] = {}  # person -> how many now
        self.terms: dict[str, tuple[str, tuple[int, ...]]] = {}  # person -> shape and numbers that led there
        self.since: dict[str, int] = {}  # person -> unit with their first number
        self.near: str | None = None  # whom a pronoun would mean

    def copy(self) -> "Sums":
        other = Sums.__new__(Sums)
        for name in Sums.__slots__:
            value = getattr(self, name)
            setattr(other, name, value.copy() if name in ("owners", "terms", "since") else value)
        return other

    def end_unit(self, near: str | None = None) -> None:
        self.near = near
        self.step += 1
