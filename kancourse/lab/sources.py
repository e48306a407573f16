"""Where the named corpora come from: one table, a row each; adding a corpus is adding a row.

- A local folder comes first: `$KANCOURSE_DATA/<name>/`, with files (.txt, .parquet, .jsonl, .json, .tar.gz) whose
  names, or whose folders' names, hold train, valid (or val) and test; files without such a name are one corpus still to
  be split. See `readers.py`.
- Then the Hub, or one file at a fixed address: at a pinned revision, a single file checked against its sha256, and
  Parquet or text only, so nothing runs a stranger's code. Large sets are streamed.
- A set of questions whose test split is set aside (`test_split`) is trained on without it, and asked from it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One named corpus.

    Attributes:
        licence: of the text, as its publishers state it.
        about: one line for people.
        documents: how the text falls into documents. "row": each row of the table is one. "whole": all of it is one,
            split by position. "wikitext": an article begins at a line " = Title = ". "line": each line is one.
            "problem": a text file holds lines "Problem:" and "Answer:". "group:<column>": neighbouring
            rows with the same value in that column are parts of one. In a .txt file of a "row" or "group" corpus,
            a line <|endoftext|> divides documents.
        layout: how a record becomes a document, of `layouts.LAYOUTS`; None: the column `text_column` is the text.
        answers: how a right answer is told, of `answers.FORMATS`; None: there are no answers.
        domain: where a document's domain is told: "column:<name>", or "folder" (the one its file lies in), or
            "path:<name>|<name>" (the first folder of that name, with the one below it); None: there are no domains.
        tokenizer: what "auto" means here.
        repo, config, revision, text_column, splits: on the Hub; `splits` are its names for train and (if any) val.
            `config` may be several, separated by blanks: they are read one after the other.
        test_split: the Hub's name for a test split that is set aside for questions.
        archive: on the Hub, the name of a .tar.gz with text files; `{domain}` in it stands for each of `domains`.
        domains: what is read from archives when no domains are asked for.
        url, sha256: instead of a Hub set, one file; a local copy (any name) must have the same sha256.
        streamed: read from the Hub row by row instead of downloading the set first.
        validation_fraction: share held out when the set has no validation split of its own.
        max_characters: read at most so much unless asked otherwise; None reads all.
    """

    name: str
    licence: str
    about: str
    documents: str = "row"
    layout: str | None = None
    answers: str | None = None
    domain: str | None = None
    tokenizer: str = "bpe"
    repo: str | None = None
    config: str | None = None
    revision: str | None = None
    text_column: str = "text"
    splits: tuple[str, ...] = ("train",)
    test_split: str | None = None
    archive: str | None = None
    domains: tuple[str, ...] = ()
    url: str | None = None
    sha256: str | None = None
    streamed: bool = False
    validation_fraction: float = 0.1
    max_characters: int | None = None


WIKITEXT_REVISION = "b08601e04326c79dfdd32d625aee71d232d685c3"

CORPORA = {
    row.name: row
    for row in (
        Row(
            name="tinyshakespeare",
            licence="public domain",
            about="40,000 lines of Shakespeare's plays in one file (Karpathy 2015)",
            documents="whole",
            tokenizer="characters",
            url="https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
            "/data/tinyshakespeare/input.txt",
            sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        ),
        Row(
            name="wikitext2",
            licence="CC BY-SA 3.0 and GFDL",
            # A local copy may be the word-tokenised edition instead, with <unk> for rare words: other numbers.
            about="720 good Wikipedia articles, raw text (Merity et al. 2017)",
            documents="wikitext",
            repo="Salesforce/wikitext",
            config="wikitext-2-raw-v1",
            revision=WIKITEXT_REVISION,
            splits=("train", "validation"),
        ),
        Row(
            name="wikitext103",
            licence="CC BY-SA 3.0 and GFDL",
            about="28,595 good Wikipedia articles, raw text, 540 MB (Merity et al. 2017)",
            documents="wikitext",
            tokenizer="gpt2",
            repo="Salesforce/wikitext",
            config="wikitext-103-raw-v1",
            revision=WIKITEXT_REVISION,
            splits=("train", "validation"),
        ),
        Row(
            name="openwebtext",
            licence="CC0 for the packaging; the pages belong to their authors",
            about="8 million web pages liked on Reddit, 40 GB (Gokaslan and Cohen 2019)",
            tokenizer="gpt2",
            repo="Skylion007/openwebtext",
            config="plain_text",
            revision="b4325f019c648b1641a1784748667e8b74e5e064",
            streamed=True,
            validation_fraction=0.005,
            max_characters=200_000_000,
        ),
        Row(
            name="fineweb",
            licence="ODC-By 1.0; the pages belong to their authors",
            about="filtered Common Crawl, its 10-billion-token sample (Penedo et al. 2024)",
            tokenizer="gpt2",
            repo="HuggingFaceFW/fineweb",
            config="sample-10BT",
            revision="9bb295ddab0e05d785b879661af7260fed5140fc",
            streamed=True,
            validation_fraction=0.005,
            max_characters=200_000_000,
        ),
        Row(
            name="tinystories",
            licence="CDLA-Sharing 1.0",
            about="2.1 million short stories in the words of a small child, 1.9 GB (Eldan and Li 2023)",
            repo="roneneldan/TinyStories",
            revision="f54c09fd23315a6f9c86f9dc80f725de7d8f9c64",
            splits=("train", "validation"),
            streamed=True,
            max_characters=200_000_000,
        ),
        Row(
            name="philosophy",
            licence="the articles belong to their authors and the encyclopedia; for study only",
            about="articles of the Stanford Encyclopedia of Philosophy",
            documents="group:metadata",  # rows are passages; `metadata` is the article's address
            repo="AiresPucrs/stanford-encyclopedia-philosophy",
            # A branch, not a commit, for the commit could not be looked up when this row was written. Whoever first
            # downloads it should put the commit here: HfApi().dataset_info(repo, revision="refs/convert/parquet").sha.
            # Until then the text may change under the same name.
            revision="refs/convert/parquet",
        ),
        Row(
            name="m2d2",
            licence="CC BY-NC 4.0; the papers and pages belong to their authors",
            # 145 domains and 8.5 billion tokens in all: these few are read unless others are asked for. Its validation
            # and test files are cut by size, perhaps in the middle of a letter. Taking a line for a document is a guess
            # from its loader; so is the inside of AMPS's archive below. Nobody here has downloaded either yet.
            about="papers by field and Wikipedia by topic: many domains, nested in two levels (Reid et al. 2022)",
            documents="line",
            domain="folder",
            tokenizer="gpt2",
            repo="machelreid/m2d2",
            revision="6ae613ba744ee56f645aee9c577d04f7e3d48b30",
            archive="data/{domain}.tar.gz",
            domains=("cs_l1", "math_l1", "Philosophy_and_thinking", "History_and_events"),
            splits=("train", "validation"),
            max_characters=200_000_000,
        ),
        Row(
            name="amps",
            licence="MIT for the collection; the exercises belong to their authors",
            # Published as one archive outside the Hub; this is a copy of that archive.
            about="5 million school exercises, by Khan Academy and by Mathematica (Hendrycks et al. 2021)",
            documents="problem",
            layout="amps",
            answers="formula",
            domain="path:khan|mathematica",
            repo="minimalt/MATH_amps",
            revision="4eb19bf506101f1a0e180dc82b7f13ce258142d1",
            archive="amps.tar.gz",
            validation_fraction=0.01,
            max_characters=200_000_000,
        ),
        Row(
            name="math",
            licence="MIT",
            about="12,500 competition problems with worked solutions, seven subjects (Hendrycks et al. 2021)",
            layout="math",
            answers="boxed",
            domain="column:type",
            repo="EleutherAI/hendrycks_math",
            config="algebra counting_and_probability geometry intermediate_algebra number_theory prealgebra "
            "precalculus",
            revision="21a5633873b6a120296cce3e2df9d5550074f4a3",
            test_split="test",
            validation_fraction=0.05,
        ),
        Row(
            name="gsm8k",
            licence="MIT",
            about="8,792 word problems of primary school with worked answers (Cobbe et al. 2021)",
            layout="gsm8k",
            answers="hashes",
            repo="openai/gsm8k",
            config="main",
            revision="cc7b047b6e5bb11b4f1af84efc572db110a51b3c",
            test_split="test",
            validation_fraction=0.05,
        ),
        Row(
            name="phicode",
            licence="CC BY-NC-SA 4.0; written by GPT-3.5",
            # Phi's own code exercises were never published; this is the open set made by the recipe of its paper.
            about="1.5 million exercises in Python, in the manner of Phi (Gunasekar et al. 2023; Jina AI 2023)",
            layout="code",
            repo="jinaai/code_exercises",
            revision="656759a32570bbf7b628d644991fc97338126a0f",
            streamed=True,
            validation_fraction=0.01,
            max_characters=200_000_000,
        ),
        Row(
            name="openqa",
            licence="CC BY-SA 3.0",
            # "OpenQA" names a task and no one set; Natural Questions, open, is the usual one.
            about="91,535 questions that people asked a search engine, with short answers (Lee et al. 2019)",
            layout="openqa",
            answers="short",
            repo="google-research-datasets/nq_open",
            revision="5dd9790a83002ad084ddeb7c420dc716852c6f28",
            splits=("train", "validation"),
        ),
    )
}


def find_row(name: str) -> Row | None:
    """The row of a name, which may be written as people write it: "M2D2", "Phi-Code"."""
    return CORPORA.get(name.lower().replace("-", "").replace("_", ""))
