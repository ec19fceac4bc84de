"""Which catalog says where the table's newest metadata is, and where the files lie: as the settings have it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from sqlalchemy import select
from sqlalchemy.engine import URL

from eventmill.core.config import LakeConfig
from eventmill.core.errors import ConfigError, StateError, StoreError
from eventmill.lake.bucket import Bucket
from eventmill.lake.storage import Folder, Storage, recorded_folder

_NAME: Final = "eventmill"


def open_storage(folder: Path, settings: LakeConfig) -> Storage:
    """The place of the table's files: below ``folder``, or where ``settings.warehouse`` says."""
    if settings.warehouse:
        return Bucket(settings)
    events = folder / "events"
    events.mkdir(parents=True, exist_ok=True)
    recorded = str(events) if settings.catalog else recorded_folder(folder / "catalog.sqlite", events)
    if "://" in recorded:
        raise StateError(
            f"the lake of {folder} lies at {recorded}; set lake.warehouse as it was, or name another --data"
        )
    return Folder(events, recorded)


def open_catalog(folder: Path, settings: LakeConfig, storage: Storage) -> Catalog:
    """SQLite in ``folder``, or the PostgreSQL database or Iceberg REST catalog that ``settings.catalog`` names.

    What else a REST catalog wants (``token``, ``credential``, ``warehouse``…) comes from pyiceberg's own configuration of a
    catalog called ``eventmill``. Raises ``ConfigError``, ``StoreError``; neither has a password in it.
    """
    uri = settings.catalog
    if not uri:
        database = URL.create("sqlite", database=str(folder / "catalog.sqlite"), query={"timeout": "30"})
        return SqlCatalog(_NAME, uri=database.render_as_string(), **storage.properties)
    kind, _, rest = uri.partition("://")
    shown = f"{kind}://{rest.rpartition('@')[2]}"
    try:
        if kind in ("http", "https"):
            return load_catalog(_NAME, type="rest", uri=uri, **storage.properties)
        if kind in ("postgresql", "postgresql+psycopg2"):
            # The driver by name: which one is meant without it depends on SQLAlchemy's version.
            return SqlCatalog(_NAME, uri=f"postgresql+psycopg2://{rest}", pool_pre_ping="true", **storage.properties)
    except ImportError as error:
        raise ConfigError("a catalog in PostgreSQL needs a driver: pip install 'eventmill[postgres]'") from error
    except Exception as error:
        raise StoreError(
            f"the lake's catalog {shown} cannot be opened ({type(error).__name__}); check lake.catalog, and that it runs"
        ) from error
    raise ConfigError(f"lake.catalog = {shown!r} is neither postgresql://USER:PASSWORD@HOST/DATABASE nor http(s)://…")


def newest_metadata(catalog: Catalog, name: tuple[str, str]) -> str | None:
    """Where a table's newest metadata lies, when the catalog tells that for less than the metadata itself; else null."""
    if not isinstance(catalog, SqlCatalog):
        return None
    wanted = select(IcebergTables.metadata_location).where(
        IcebergTables.catalog_name == catalog.name,
        IcebergTables.table_namespace == name[0],
        IcebergTables.table_name == name[1],
    )
    with catalog.engine.connect() as connection:
        found: str | None = connection.execute(wanted).scalar()
    return found
