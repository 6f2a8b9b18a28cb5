"""Where pictures come from, one family a file. Importing this package fills the registry `SOURCES`."""

from conviction.data.source import cifar10, digits, folder, mnist, table
from conviction.data.source.base import SOURCES, Entry, Source, SourceConfig

__all__ = ["SOURCES", "Entry", "Source", "SourceConfig", "cifar10", "digits", "folder", "mnist", "table"]
