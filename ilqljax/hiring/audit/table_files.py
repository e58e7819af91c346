"""Read a table from the forms that people have: separated text, Excel, Parquet.

Separated text may be gzipped, in UTF-8, UTF-16 (with its byte order mark) or Windows-1252 (where it is not UTF-8, which
is said in a warning), and separated by commas, semicolons, tabs or bars: by what splits the header into the most names,
or as a first line `sep=;` says. Excel and Parquet files are read by pandas, with openpyxl and pyarrow.
"""

import codecs
import contextlib
import csv
import gzip
import itertools
import logging
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ilqljax.data.files import read_bounded_lines
from ilqljax.errors import UserError

logger = logging.getLogger(__name__)

DELIMITERS = (",", ";", "\t", "|")
EXCEL, OLD_EXCEL, PARQUET, GZIP = b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"PAR1", b"\x1f\x8b"
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
Rows = Iterator[tuple[int, list[str]]]  # the number of a line or row, and its cells


def read_rows(path: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each row as `number_rows` does."""
    rows, name_place = number_rows(path)
    return ((name_place(number), cells) for number, cells in rows)


def number_rows(path: str | Path) -> tuple[Rows, Callable[[int], str]]:
    """Return the rows that have any cell, the header's first, and what names the place of a row's number.

    Cells are text without outer spaces.

    Raises:
        UserError: at once or while rows are read: a missing file, one that is no table or cannot be read, a package
            that is missing to read it, or a cell that has swallowed rows because of a stray quote.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give a table with a header and one row a candidate.")
    with _explain_damage(path), _open(path) as stream:
        magic = stream.read(4)
    if magic == OLD_EXCEL:
        raise UserError(f"{path}: this is a workbook of Excel before 2007. Save it as .xlsx or CSV.")
    if magic in (EXCEL, PARQUET):
        reader, package = ("read_excel", "openpyxl") if magic == EXCEL else ("read_parquet", "pyarrow")
        return _read_frame(
            path, reader, package
        ), lambda number: f"{path}: row {number}" if number else f"{path}: columns"
    return _read_text(path, magic), lambda number: f"{path}:{number}"


@contextlib.contextmanager
def _explain_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}). Copy it again.") from error


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as stream:
        is_gzip = stream.read(2) == GZIP
    return gzip.open(path) if is_gzip else path.open("rb")


def _detect_encoding(path: Path, magic: bytes) -> str:
    if magic[:2] in UTF16:
        return "utf-16"
    decoder = codecs.getincrementaldecoder("utf-8")()
    with _open(path) as stream:
        try:
            for chunk in iter(lambda: stream.read(1 << 20), b""):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            logger.warning("%s: is not UTF-8, and is read as Windows-1252.", path)
            return "cp1252"
    return "utf-8-sig"


def _read_text(path: Path, magic: bytes) -> Rows:
    start = 1  # line of the row that is being read
    try:
        with _explain_damage(path), _open(path) as stream:
            encoding = _detect_encoding(path, magic)
            lines = _decode_lines(stream, path, encoding)
            first = next(lines, "")
            mark, n_before = first.strip(), 0
            if mark.lower().startswith("sep=") and len(mark) == 5:
                delimiter, n_before, first = mark[4], 1, next(lines, "")
            else:
                delimiter = max(DELIMITERS, key=lambda each: len(next(csv.reader([first], delimiter=each), [])))
            reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True)
            width, start = 0, n_before + 1
            for cells in reader:
                width, end = width or len(cells), n_before + reader.line_num
                if end > start and any(_swallowed_rows(cell, delimiter, width) for cell in cells):
                    advice = "a quote that begins here is closed lines later. Remove or double it."
                    raise UserError(f"{path}:{start}: {advice}")
                if any(cells):
                    yield start, [cell.strip() for cell in cells]
                start = end + 1
    except csv.Error as error:
        advice = "Is there a stray quote or line break? Remove or double it."
        raise UserError(f"{path}:{start}: not CSV ({error}). {advice}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}:{start}: not {encoding} text ({error.reason}). Save it as UTF-8.") from error


def _decode_lines(stream: BinaryIO, path: Path, encoding: str) -> Iterator[str]:
    if encoding == "utf-16":  # whose line ends are two bytes
        yield from stream.read().decode(encoding).splitlines(keepends=True)
        return
    for number, line in read_bounded_lines(stream, path):
        yield line.decode(encoding if number == 1 or encoding == "cp1252" else "utf-8")


def _swallowed_rows(cell: str, delimiter: str, width: int) -> bool:
    """Return whether a line within a cell is itself a whole row."""
    return width > 1 and any(len(line.split(delimiter)) >= width for line in cell.split("\n")[1:])


def _read_frame(path: Path, reader: str, package: str) -> Rows:
    import pandas

    try:
        frame = getattr(pandas, reader)(path, **({"dtype": str, "header": None} if reader == "read_excel" else {}))
    except ImportError as error:
        raise UserError(f"{path}: pandas reads it with {package}: pip install {package}. Or save it as CSV.") from error
    except Exception as error:  # what a damaged file raises depends on the package
        raise UserError(f"{path}: cannot be read ({error}). Copy it again, or save it as CSV.") from error
    rows = frame.astype(object).where(frame.notna(), "")
    if reader == "read_parquet":
        yield 0, [str(name) for name in rows.columns]
    for number, cells in enumerate(rows.itertuples(index=False), start=1):
        texts = [str(cell).strip() for cell in cells]
        if any(texts):
            yield number, texts
