"""Downloads: from the Hub at a pinned revision, or one file checked against its sha256; nothing before it is read.

- Without a network one sentence says where to put a file and what works now.
"""

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from kancourse.lab.archives import examples_of_archives
from kancourse.lab.domains import of_domains
from kancourse.lab.layouts import Example, pick
from kancourse.lab.local_files import file_sha256, works_now
from kancourse.lab.parsing import assemble, slots_of
from kancourse.lab.sources import Row
from kancourse.paths import cache_dir


def _offline(row: Row, cause: Exception) -> ConnectionError:
    place = "input.txt" if row.url else "train and validation files (.parquet, .jsonl or .txt)"
    if row.layout:
        place = "its files as published (.parquet, .jsonl or .json)"
    if row.archive:
        place = f"its archive {Path(row.archive).name.format(domain='<domain>')}, or what is in it,"
    root = os.environ.get("KANCOURSE_DATA")
    looked = f"{Path(root, row.name)} holds none of it" if root else "KANCOURSE_DATA names no folder to look in"
    reason = (str(cause).splitlines() or [type(cause).__name__])[0][:200]
    return ConnectionError(
        f"cannot download {row.name} ({reason}), and {looked}; to work offline put {place} into "
        f"$KANCOURSE_DATA/{row.name}/; without a network these work now: {works_now()}"
    )


def hub_examples(row: Row, split: str, domains: Sequence[str] | None) -> Iterator[Example]:
    """The documents of a split of a set of tables, its configurations one after the other.

    Raises:
        ConnectionError: it cannot be downloaded.
        ValueError: a column is missing, or there is no such domain.
    """
    import datasets  # both here, because they take a second to import and most runs never need them
    from huggingface_hub.errors import HTTPError  # whatever HTTP library the hub's client uses

    def records() -> Iterator[tuple]:
        for config in row.config.split() if row.config else [None]:
            rows = datasets.load_dataset(row.repo, config, split=split, revision=row.revision, streaming=row.streamed)
            names = pick(slots_of(row), rows.column_names or list(next(iter(rows))), row.name)
            for record in rows.select_columns(names):
                yield tuple(record[name] for name in names)

    try:
        yield from of_domains(assemble(records(), row), domains, row.name)
    except (OSError, HTTPError) as error:
        raise _offline(row, error) from error


def hub_archives(row: Row, part: str, domains: Sequence[str] | None) -> Iterator[Example]:
    """The documents of a part of a set of archives, which are downloaded whole and kept by the Hub's library.

    Raises:
        ConnectionError: they cannot be downloaded.
        ValueError: an archive cannot be read, or there is no such domain.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError

    per_domain = "{domain}" in row.archive
    names = [row.archive.format(domain=domain) for domain in domains or row.domains] if per_domain else [row.archive]
    try:
        paths = [Path(hf_hub_download(row.repo, name, repo_type="dataset", revision=row.revision)) for name in names]
    except (OSError, HTTPError) as error:
        raise _offline(row, error) from error
    yield from examples_of_archives(paths, row, part, None if per_domain else domains)


def download(row: Row) -> Path:
    """The one file of a row with an address: from the cache, or fetched and checked.

    Raises:
        ConnectionError: it cannot be downloaded.
        ValueError: what came is not the published file.
    """
    path = cache_dir() / "downloads" / row.sha256 / "input.txt"
    if path.is_file() and file_sha256(path) == row.sha256:
        return path
    try:
        if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            raise ConnectionError("HF_HUB_OFFLINE is set")
        with urllib.request.urlopen(row.url, timeout=60) as answer:
            content = answer.read()
    except OSError as error:
        raise _offline(row, error) from error
    if (found := hashlib.sha256(content).hexdigest()) != row.sha256:
        raise ValueError(f"the download of {row.name} has sha256 {found[:12]}…, expected {row.sha256[:12]}…; try again")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)
    return path
