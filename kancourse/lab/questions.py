"""Questions of a corpus that has answers: what to ask, and what would be right.

- They come from the test part where one was set aside, else from the validation documents: never from what a model was
  trained on.
- The same ones every time: a limit takes them evenly spread.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from kancourse.lab.answers import FORMATS, AnswerFormat
from kancourse.lab.corpus import open_corpus, with_domain
from kancourse.lab.documents import split_of
from kancourse.lab.layouts import Example
from kancourse.lab.readers import Opened
from kancourse.lab.sources import CORPORA, find_row

MOST = 20_000  # examples looked at, for questions and for the most frequent answer alike


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What to ask about a corpus.

    Attributes:
        corpus: its name.
        part: "test" or "validation".
        examples: each with a prompt and at least one right answer.
        n_all: how many there are, of which `examples` may be some.
        answer_format: how an answer is found and compared.
        usual_answer: the most frequent answer of the training documents: what a control would always say.
    """

    corpus: str
    part: str
    examples: list[Example]
    n_all: int
    answer_format: AnswerFormat
    usual_answer: str


def has_answers(name: str) -> bool:
    """Whether there is anything to ask about a corpus."""
    first, _ = with_domain(name, None)
    row = find_row(first)
    return row is not None and row.answers is not None


def load_questions(
    name: str, *, domains: Sequence[str] | None = None, n_questions: int | None = None, seed: int = 0
) -> Questions:
    """The questions of a corpus.

    Args:
        name: of a corpus with answers, perhaps with a domain behind it.
        domains: only these.
        n_questions: at most so many, evenly spread; None: all.
        seed: of the split, as `load_corpus` had it.

    Raises:
        ValueError: a corpus without answers (those with are listed), or nothing to ask in what there is of it.
    """
    name, domains = with_domain(name, domains)
    row, opened = open_corpus(name, tuple(domains) if domains else None)
    if row.answers is None:
        having = ", ".join(known.name for known in CORPORA.values() if known.answers)
        raise ValueError(f"{row.name} has no questions with answers; these have: {having}")
    if n_questions is not None and n_questions < 1:
        raise ValueError(f"n_questions must be at least 1, got {n_questions}")
    asked = [example for example in _part(opened, "val", row.validation_fraction, seed) if example.answers]
    if not asked:
        raise ValueError(f"there is no question with an answer in what is here of {row.name}")
    kept = asked
    if n_questions is not None and n_questions < len(asked):
        kept = [asked[i * len(asked) // n_questions] for i in range(n_questions)]
    answer_format = FORMATS[row.answers]
    trained_on = _part(opened, "train", row.validation_fraction, seed)
    usual = Counter(answer_format.normalise(example.answers[0]) for example in trained_on if example.answers)
    return Questions(
        corpus=row.name,
        part="test" if "test" in opened.examples else "validation",
        examples=kept,
        n_all=len(asked),
        answer_format=answer_format,
        usual_answer=usual.most_common(1)[0][0] if usual else "",
    )


def _part(opened: Opened, part: str, fraction: float, seed: int) -> Iterator[Example]:
    """The examples of one part, as `split_documents` would split them; to be asked, those of the test part if any."""
    if part == "val" and "test" in opened.examples:
        found = opened.examples["test"]()
    elif part in opened.examples:
        found = opened.examples[part]()
    else:
        found = (example for example in opened.examples["all"]() if split_of(example.text, fraction, seed) == part)
    return islice(found, MOST)
