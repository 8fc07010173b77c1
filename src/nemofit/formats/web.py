"""A model by its address: the headers of its file, or of all files of its set."""

from __future__ import annotations

from nemofit.catalog.model import ModelSpec, Origin
from nemofit.errors import DataError, UnknownNameError

from .connection import Connections
from .gguf.header import Header, header_of
from .gguf.reader import model_of, shard_names
from .places import Places
from .remote import FIRST, FIRST_OF_SHARD, RemoteFile, check, name_of, shown_url, sibling_url


def read_url(url: str, places: Places) -> ModelSpec:
    """Read a model from a server without downloading it.

    Args:
        url: Of its file; of a split model of any of its files, the others in the same folder.
        places: Whose environment names proxies.

    Raises:
        DataError: No address, or what it leads to is no language model.
        UnknownNameError: There is no such file.
        HardwareError: The server cannot be reached, refuses, or does not give parts of files.
    """
    names, headers = read_headers(url, places)
    first = sibling_url(url, names[0]) if len(names) > 1 else url
    return model_of(names, headers, Origin(url=first), shown_url(check(first)))


def read_headers(url: str, places: Places) -> tuple[list[str], list[Header]]:
    """Names and headers of the file at an address, or of its whole set, in order."""
    names = shard_names(name_of(url))
    headers = []
    with Connections(places.environ) as connections:
        for i, name in enumerate(names):
            address = url if len(names) == 1 else sibling_url(url, name)
            file = RemoteFile(connections, address, first=FIRST_OF_SHARD if i else FIRST)
            try:
                headers.append(header_of(file, file.name))
            except UnknownNameError as error:
                if len(names) == 1:
                    raise
                raise DataError(
                    f"{name} of {len(names)} files is not on the server",
                    "check the address, or name a complete set",
                ) from error
    return names, headers
