"""What this machine keeps of collections at addresses.

<cache>/stores/<address>/tables/<sha256>.parquet   parts that were read
<cache>/stores/<address>/work/<name>/              journals, logs, and images of a part that is not committed
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from dreamloom.base.files.cache_folder import cache_folder
from dreamloom.base.files.remote import address_of

_FOLDER, _TABLES = "stores", "tables"


def folder_of(address: str) -> Path:
    """Returns the folder of what is under way on this machine in the collection at an address."""
    return _cache_of(address) / "work" / address.rpartition("/")[2]


def _cache_of(address: str) -> Path:
    """Returns the folder in the cache of what is known of the collection at an address."""
    return cache_folder() / _FOLDER / hashlib.blake2b(address.encode(), digest_size=16).hexdigest()


def tables_of(address: str) -> Path:
    """Returns the folder of the tables in the cache."""
    return _cache_of(address) / _TABLES


def cached_tables(used: Sequence[Path | str]) -> list[Path]:
    """Returns the folders in the cache that hold tables of collections at addresses, one for each address.

    Args:
        used: collections, folders or addresses, whose tables are left out.
    """
    kept = {tables_of(address) for address in map(address_of, used) if address is not None}
    return sorted(folder for folder in (cache_folder() / _FOLDER).glob(f"[!.]*/{_TABLES}") if folder not in kept)
