"""microworld: short English texts from a grammar written here (CC0), with a known floor under every loss curve.

- `stream` writes documents without end, each with its exact log-probability; `log_prob` reads that off any text.
- `judge` says how much of any text is grammatical, consistent and right.
- Four domains: stories, sums, code, facts. Three levels with nested vocabularies and growing sentences.
- `snapshot` is a fixed training and validation set; `prompts` are questions cut before the answer.

How it works: `engine` (choices), `phrases` (wording), one program per domain, `documents` (writing and reading).
"""

from kancourse.lab.microworld.documents import DOMAINS, Document, log_prob, stream
from kancourse.lab.microworld.judge import Note, Verdict, judge
from kancourse.lab.microworld.prompts import Prompt, prompts
from kancourse.lab.microworld.slots import LEVELS
from kancourse.lab.microworld.snapshot import snapshot, write_snapshot
from kancourse.lab.microworld.vocabulary import pieces, vocabulary, words

__all__ = [
    "DOMAINS",
    "LEVELS",
    "Document",
    "Note",
    "Prompt",
    "Verdict",
    "judge",
    "log_prob",
    "pieces",
    "prompts",
    "snapshot",
    "stream",
    "vocabulary",
    "words",
    "write_snapshot",
]
