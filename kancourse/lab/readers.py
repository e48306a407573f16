"""Where documents come from: a local folder first, then a download; and exactly what was found, for key and record.

- A local folder may hold a downloaded copy of the Hub repository, plain text files, or only some of the parts: then the
  note says what stands in for what.
- A set with a test split to be asked from is trained on without it: validation is then a share of the training part.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kancourse.lab.archives import examples_of_archives
from kancourse.lab.domains import in_turn, of_domains
from kancourse.lab.downloads import download, hub_archives, hub_examples
from kancourse.lab.layouts import Example
from kancourse.lab.local_files import few_hashes, files_by_part, hashes_of, local_folder
from kancourse.lab.parsing import domain_of, examples_of_file, is_one_text
from kancourse.lab.sources import CORPORA, Row

Read = Callable[[], Iterator[Example]]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A corpus ready to be read.

    Attributes:
        parts: documents by part, {"all": …} still to be split or {"train": …, "val": …}; each call starts afresh.
        identity: what is read, as JSON types: file names (within their folder) and sha256, or repository and revision.
        by_position: "all" is one text, to be split at a position and not by document.
        note: what a reader of the numbers must know, or "".
        examples: the same with prompts, answers and domains; also "test", where a test part was set aside.
    """

    parts: dict[str, Callable[[], Iterator[str]]]
    identity: dict
    by_position: bool = False
    note: str = ""
    examples: dict[str, Read] = field(default_factory=dict)


def open_source(row: Row, domains: Sequence[str] | None = None) -> Opened:
    """The corpus of a table row: from `$KANCOURSE_DATA/<name>/` if there are files, else downloaded when first read.

    Args:
        row: of the table.
        domains: only documents of these; None: all of a local folder, and of a download what the row says.

    Raises:
        ValueError: a local file is empty, or not the published one.
        ConnectionError: a single file that is neither here nor to be had (Hub sets raise it when read).
    """
    if folder := local_folder(row.name):
        return _open_folder(row, folder, domains)
    if row.url:
        return _open_files(row, {"all": [download(row)]}, identity={"url": row.url, "sha256": row.sha256})
    keys = ("train", "val") if len(row.splits) == 2 else ("all",)
    wanted = dict(zip(keys, row.splits, strict=True)) | ({"test": row.test_split} if row.test_split else {})
    identity = {"repo": row.repo, "config": row.config, "revision": row.revision}
    if row.archive:
        identity |= {"archive": row.archive, "domains": list(domains or row.domains)}
        readers: dict[str, Read] = {key: partial(hub_archives, row, key, domains) for key in wanted}
    else:
        readers = {key: partial(hub_examples, row, split, domains) for key, split in wanted.items()}
    return _opened(readers, identity, note=_set_aside("test") if row.test_split else "")


def _opened(readers: dict[str, Read], identity: dict, **more) -> Opened:
    parts = {part: partial(_texts, read) for part, read in readers.items() if part != "test"}
    return Opened(parts=parts, identity=identity, examples=readers, **more)


def _texts(read: Read) -> Iterator[str]:
    return (example.text for example in read())


def _set_aside(name: str) -> str:
    return f"{name} is set aside for questions; validation is a share of the training part"


def open_file(path: Path) -> Opened:
    """A user's own file: documents divided by <|endoftext|> lines, one text if there are none; or a .parquet or .jsonl
    table with a column `text`.

    Raises:
        FileNotFoundError: no such file; the message lists the named corpora.
        ValueError: it is empty or not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; named corpora: microworld, {', '.join(CORPORA)}")
    return _open_files(Row(name=path.name, licence="your own", about="a file of your own"), {"all": [path]})


def _open_folder(row: Row, folder: Path, domains: Sequence[str] | None) -> Opened:
    if row.config and (folder / row.config).is_dir():
        folder = folder / row.config  # a downloaded copy of the Hub repository
    found = files_by_part(folder)
    archives = found.pop("archive", [])
    if not found:
        return _open_archives(row, archives, domains)
    note = ""
    if row.answers and "train" in found and "test" in found and "val" not in found:
        parts, note = {"all": found["train"], "test": found["test"]}, _set_aside(_named(found["test"], folder))
    elif "train" in found and "val" in found:
        parts = {"train": found["train"], "val": found["val"]}
    elif "test" in found and ("train" in found or "val" in found):
        here, gone = ("train", "validation") if "train" in found else ("val", "training")
        parts = {"train": found[here], "val": found["test"]}
        names = [parts[part][0].name for part in parts]
        note = f"the local folder has no {gone} part: {names[0]} is trained on and {names[1]} is the validation split"
    else:
        part, parts = next((part, {"all": found[part]}) for part in ("train", "all", "val", "test") if part in found)
        if part in ("val", "test"):
            note = f"the local folder has only {parts['all'][0].name}: it is split into training and validation"
    return _open_files(row, parts, note=note, domains=domains)


def _named(paths: list[Path], folder: Path) -> str:
    return paths[0].name if len(paths) == 1 else f"{paths[0].relative_to(folder).parts[0]}"


def _open_files(
    row: Row,
    parts: dict[str, list[Path]],
    *,
    identity: dict | None = None,
    note: str = "",
    domains: Sequence[str] | None = None,
) -> Opened:
    together = [path for paths in parts.values() for path in paths]
    hashes = hashes_of(together)
    if row.sha256 and row.sha256 not in hashes.values():
        raise ValueError(
            f"{', '.join(hashes)} in the local folder is not the published {row.name} (sha256 {row.sha256[:12]}…, got "
            f"{next(iter(hashes.values()))[:12]}…); fetch it again, or pass a path to use a text of your own"
        )
    one_text = "all" in parts and "test" not in parts and all(is_one_text(path, row) for path in parts["all"])
    readers: dict[str, Read] = {part: partial(_local_examples, paths, row, domains) for part, paths in parts.items()}
    identity = identity or {"files": few_hashes(hashes)}
    return _opened(readers, identity, by_position=one_text, note=note)


def _local_examples(paths: list[Path], row: Row, domains: Sequence[str] | None) -> Iterator[Example]:
    """The documents of files, those of several domains taken in turn."""
    by_domain: dict[str | None, list[Path]] = {}
    for path in paths:
        by_place = row.domain is not None and not row.domain.startswith("column:")
        by_domain.setdefault(domain_of(path, row) if by_place else None, []).append(path)
    streams = [_examples_of_files(some, row) for some in by_domain.values()]
    return of_domains(in_turn(streams), domains, row.name, known=list(filter(None, by_domain)))


def _examples_of_files(paths: list[Path], row: Row) -> Iterator[Example]:
    for path in paths:
        yield from examples_of_file(path, lambda path=path: path.open("rb"), row)


def _open_archives(row: Row, archives: list[Path], domains: Sequence[str] | None) -> Opened:
    keys = ("train", "val") if len(row.splits) == 2 else ("all",)
    readers: dict[str, Read] = {key: partial(examples_of_archives, archives, row, key, domains) for key in keys}
    return _opened(readers, {"files": few_hashes(hashes_of(archives))})
