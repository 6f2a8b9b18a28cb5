"""Where pictures come from, one family a file. Importing this package fills the registry `SOURCES`."""

from pathlib import Path

from conviction.data.source import cifar10, digits, folder, hugging_face, mnist, table
from conviction.data.source.arrow_file import is_data_set
from conviction.data.source.base import SOURCES, Entry, Source, SourceConfig
from conviction.data.source.table_file import TABLE_SUFFIXES

__all__ = [
    "SOURCES",
    "Entry",
    "Source",
    "SourceConfig",
    "cifar10",
    "digits",
    "folder",
    "hugging_face",
    "mnist",
    "source_name",
    "table",
]


def source_name(path: Path) -> str:
    """Which data source reads what lies there: a list, a data set's files, or class folders."""
    if path.suffix.lower() in TABLE_SUFFIXES:
        return "table"
    return "hugging_face" if is_data_set(path) else "folder"
