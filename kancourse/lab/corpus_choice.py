"""Which corpus a command means: the flags that `evaluate`, `adapt` and `interpolate` have in common."""

from dataclasses import dataclass

from kancourse.lab.corpus import Corpus, load_corpus
from kancourse.lab.tokenizers import Tokenizer

__all__ = ["CorpusChoice"]


@dataclass(kw_only=True)
class CorpusChoice:
    """The text, and how much of it."""

    corpus: str = "microworld"  # a name, a path, or a mixture such as gsm8k:2+microworld:1
    level: int = 1  # microworld's
    domains: tuple[str, ...] | None = None  # only these, of a corpus that has domains
    max_characters: int | None = None  # read no more of the corpus than this

    def load_corpus(self, tokenizer: Tokenizer) -> Corpus:
        """The corpus, as a model with this tokenizer reads it.

        Raises:
            FileNotFoundError, ValueError: as `load_corpus`.
        """
        return load_corpus(
            self.corpus,
            tokenizer=tokenizer,
            level=self.level,
            domains=self.domains,
            max_characters=self.max_characters,
        )
