"""Where the named corpora come from: one table, a row each; adding a corpus is adding a row.

- A local folder comes first: `$KANCOURSE_DATA/<name>/`, with files (.txt, .parquet, .jsonl) whose names hold train,
  valid (or val) and test; files without such a name are one corpus still to be split. See `readers.py`.
- Then the Hub, or one file at a fixed address: at a pinned revision, a single file checked against its sha256, and
  Parquet or text only, so nothing runs a stranger's code. Large sets are streamed.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One named corpus.

    Attributes:
        licence: of the text, as its publishers state it.
        about: one line for people.
        documents: how the text falls into documents. "row": each row of the table is one. "whole": all of it is one,
            split by position. "wikitext": an article begins at a line " = Title = ". "group:<column>": neighbouring
            rows with the same value in that column are parts of one. In a .txt file of a "row" or "group" corpus,
            a line <|endoftext|> divides documents.
        tokenizer: what "auto" means here.
        repo, config, revision, text_column, splits: on the Hub; `splits` are its names for train and (if any) val.
        url, sha256: instead of a Hub set, one file; a local copy (any name) must have the same sha256.
        streamed: read from the Hub row by row instead of downloading the set first.
        validation_fraction: share held out when the set has no validation split of its own.
        max_characters: read at most so much unless asked otherwise; None reads all.
    """

    name: str
    licence: str
    about: str
    documents: str = "row"
    tokenizer: str = "bpe"
    repo: str | None = None
    config: str | None = None
    revision: str | None = None
    text_column: str = "text"
    splits: tuple[str, ...] = ("train",)
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
    )
}
