"""Archives: the text files inside a .tar.gz, read one after the other, nothing unpacked to disk.

- An archive is read from its beginning each time; a set of millions of small files stays one file.
- Names inside are only read, never created, so a malicious path can do no harm.
"""

import io
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from kancourse.lab.domains import in_turn, of_domains
from kancourse.lab.layouts import Example
from kancourse.lab.parsing import TABLE_SUFFIXES, TEXT_SUFFIXES, examples_of_file, part_of
from kancourse.lab.sources import Row

ARCHIVE_SUFFIX = ".tar.gz"


def examples_of_archives(
    archives: Sequence[Path], row: Row, part: str, domains: Sequence[str] | None
) -> Iterator[Example]:
    """The documents of one part ("train", "val", or "all") of some archives, the archives taken in turn.

    Raises:
        ValueError: an archive is cut short or something else, a file in it cannot be read, or there is no such domain.
    """
    return of_domains(in_turn([_examples(archive, row, part) for archive in archives]), domains, row.name)


def _examples(archive: Path, row: Row, part: str) -> Iterator[Example]:
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if not member.isfile() or path.suffix not in TEXT_SUFFIXES + TABLE_SUFFIXES:
                    continue
                if part in ("all", part_of(path)):
                    content = tar.extractfile(member)
                    # A Parquet file is read from its end, which a stream cannot do.
                    opened = io.BytesIO(content.read()) if path.suffix == ".parquet" else content
                    yield from examples_of_file(path, lambda opened=opened: opened, row)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{archive.name} is not a whole .tar.gz: it is cut short or something else") from error
