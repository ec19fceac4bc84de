"""Where schemas come from: a folder, or a Confluent-compatible registry."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar
from urllib.parse import quote, unquote

import orjson

from eventmill.core.config import Config, SchemasConfig
from eventmill.core.errors import ConfigError, SchemaError
from eventmill.process.schemas.columnar import Checker
from eventmill.process.schemas.sets import NO_SCHEMAS, Schema, SchemaSet

T = TypeVar("T")
_TIMEOUT_S: Final = 5.0
_COMPATIBILITY: Final = (
    "NONE",
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
)


class Reference(NamedTuple):
    """A version of a registry's subject, to be referred to by a name of its own."""

    subject: str
    version: int


#: References by the name that the document has for each.
Given = Mapping[str, Reference]
NONE_GIVEN: Final[Given] = {}


class Source(Protocol):
    """Raises ``SchemaError`` when the schemas cannot be had."""

    def fetch(self) -> SchemaSet:
        """All schemas as of now."""
        ...

    def references(self, event: str, document: Any, given: Given = NONE_GIVEN) -> Mapping[str, Any]:
        """The documents that a next version of the event's schema may refer to, by URI.

        ``given`` names some of a registry's. Raises ``SchemaError`` also where one of them is not there.
        """
        ...

    def publish(self, event: str, document: Any, given: Given = NONE_GIVEN) -> Schema:
        """Add the event's next version; the schema that is there already, if it is equal to the newest."""
        ...

    def refusal(self, event: str, document: Any, given: Given = NONE_GIVEN) -> str | None:
        """Why the source would not take it as the next version; null when it would."""
        ...


def open_source(config: Config) -> Source:
    """The source that ``[schemas]`` names."""
    if config.schemas.registry:
        return RegistrySource(config.schemas)
    return FolderSource(Path(config.schemas.folder) if config.schemas.folder else config.data / "schemas")


class FolderSource:
    """``EVENT.json`` is version 1 of an event's schema, ``EVENT/VERSION.json`` any version; names are percent-encoded.

    Files below folders that begin with ``_`` are documents to refer to, by their path within the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp: tuple[Any, ...] | None = None
        self._known = NO_SCHEMAS
        self._shared: dict[str, Any] = {}

    def fetch(self) -> SchemaSet:
        """Reads the files when one has changed. A folder that is not there has no schemas."""
        try:
            files = sorted(self._folder.rglob("*.json")) if self._folder.is_dir() else []
            stamp = tuple((path, status.st_mtime_ns, status.st_size) for path in files for status in [path.stat()])
            if stamp != self._stamp:
                self._known, self._stamp = self._read(files), stamp
        except OSError as error:
            raise SchemaError(f"the schemas in {self._folder} cannot be read: {error.strerror}") from error
        return self._known

    def _read(self, files: list[Path]) -> SchemaSet:
        documents, references = {}, {}
        for path in files:
            parts = path.relative_to(self._folder).parts
            try:
                document = orjson.loads(path.read_bytes())
            except orjson.JSONDecodeError as error:
                raise SchemaError(f"{path} is not JSON: {error}") from error
            if parts[0].startswith("_"):
                references["/".join(parts)] = document
            elif len(parts) <= 2:
                event = unquote(parts[0] if len(parts) == 2 else path.stem)
                documents[event, unquote(path.stem) if len(parts) == 2 else "1", path] = document
            else:
                raise SchemaError(
                    f"{path} lies too deep: EVENT.json and EVENT/VERSION.json are read, and what is below _NAME"
                )
        pairs = [(event, version) for event, version, _ in documents]
        twice = next((pair for pair in pairs if pairs.count(pair) > 1), None)
        if twice:
            raise SchemaError(f"version {twice[1]} of {twice[0]!r} stands twice in {self._folder}; remove one file")
        for (_, _, path), document in documents.items():
            _require(document, references, str(path))
        self._shared = references
        return SchemaSet.of(
            Schema(event, version, str(path.relative_to(self._folder)), document, _used(document, references))
            for (event, version, path), document in documents.items()
        )

    def references(self, event: str, document: Any, given: Given = NONE_GIVEN) -> Mapping[str, Any]:
        """See ``Source.references``: all documents below ``_NAME``."""
        if given:
            raise ConfigError("--reference is a registry's; in a folder a document is referred to by its path")
        self.fetch()
        return _used(document, self._shared)

    def refusal(self, event: str, document: Any, given: Given = NONE_GIVEN) -> str | None:
        """See ``Source.refusal``; a folder takes any schema."""
        return None

    def publish(self, event: str, document: Any, given: Given = NONE_GIVEN) -> Schema:
        """See ``Source.publish``."""
        _require(document, self.references(event, document, given), "the schema")
        known = self.fetch()
        newest = known.newest(event)
        if newest is not None and newest.document == document:
            return newest
        versions = known.by_event.get(event, {})
        number = next(n for n in itertools.count(len(versions) + 1) if str(n) not in versions)
        name = quote(event, safe=" ")
        if name.startswith(("_", ".")):
            name = f"%{ord(name[0]):02X}{name[1:]}"
        path = self._folder / name / f"{number}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(".tmp")
            aside.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
            aside.replace(path)
        except OSError as error:
            raise SchemaError(f"{path} cannot be written: {error.strerror}") from error
        published = self.fetch().by_event[event][str(number)]
        return published


class RegistrySource:
    """Subjects of type JSON whose names fit ``schemas.subject``; a version is the subject's."""

    def __init__(self, schemas: SchemasConfig) -> None:
        before, found, behind = schemas.subject.partition("{event}")
        if not found:
            raise ConfigError(
                f"schemas.subject = {schemas.subject!r} lacks '{{event}}', which stands for the event's name"
            )
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient
        except ImportError as error:
            raise ConfigError("schemas.registry needs confluent-kafka: pip install 'eventmill[registry]'") from error
        self._client = SchemaRegistryClient({"url": schemas.registry, "timeout": _TIMEOUT_S, "max.retries": 1})
        self._fit = before, behind
        self._known: dict[tuple[str, int], Schema] = {}

    def _subject(self, event: str) -> str:
        return self._fit[0] + event + self._fit[1]

    def fetch(self) -> SchemaSet:
        """Asks for subjects and versions, and for the text of those versions that it has not seen; a version never changes."""
        return _asked(self._fetch)

    def _fetch(self) -> SchemaSet:
        before, behind = self._fit
        present: list[Schema] = []
        for subject in self._client.get_subjects():
            event = subject.removeprefix(before).removesuffix(behind)
            if self._subject(event) != subject or not event:
                continue
            for version in self._client.get_versions(subject):
                if (subject, version) not in self._known:
                    schema = self._read(event, subject, version)
                    if schema is None:
                        break
                    self._known[subject, version] = schema
                present.append(self._known[subject, version])
        return SchemaSet.of(present)

    def _read(self, event: str, subject: str, version: int) -> Schema | None:
        registered = self._client.get_version(subject, version)
        if registered.schema.schema_type != "JSON":
            return None
        document = orjson.loads(registered.schema.schema_str or "null")
        references: dict[str, Any] = {}
        self._refer(registered.schema.references, references)
        _require(document, references, f"version {version} of subject {subject!r}")
        return Schema(event, str(version), str(registered.schema_id), document, references)

    def _refer(self, references: Any, found: dict[str, Any]) -> None:
        for reference in references or ():
            if reference.name not in found:
                registered = self._client.get_version(reference.subject, reference.version)
                found[reference.name] = orjson.loads(registered.schema.schema_str or "null")
                self._refer(registered.schema.references, found)

    def references(self, event: str, document: Any, given: Given = NONE_GIVEN) -> Mapping[str, Any]:
        """See ``Source.references``; where none are given, those of the newest version, if the document refers to any."""

        def resolve() -> Mapping[str, Any]:
            found: dict[str, Any] = {}
            self._refer(self._registered(event, document, given).references, found)
            return found

        return _asked(resolve)

    def _registered(self, event: str, document: Any, given: Given) -> Any:
        """The document as the registry's client takes it."""
        from confluent_kafka.schema_registry import Schema as Registered
        from confluent_kafka.schema_registry import SchemaReference

        cited = [SchemaReference(name, each.subject, each.version) for name, each in given.items()]
        subject = self._subject(event)
        if not cited and _used(document, {"": None}) and subject in self._client.get_subjects():
            # Not get_latest_version: the client remembers what that said before.
            newest = self._client.get_version(subject, self._client.get_versions(subject)[-1])
            cited = list(newest.schema.references or ())
        return Registered(orjson.dumps(document).decode(), "JSON", cited)

    def refusal(self, event: str, document: Any, given: Given = NONE_GIVEN) -> str | None:
        """See ``Source.refusal``: what the subject's compatibility mode says."""

        def ask() -> str | None:
            subject = self._subject(event)
            if subject not in self._client.get_subjects():
                return None
            if self._client.test_compatibility_all_versions(subject, self._registered(event, document, given)):
                return None
            return f"the registry would refuse it: it breaks the compatibility mode of subject {subject!r}"

        return _asked(ask)

    def publish(self, event: str, document: Any, given: Given = NONE_GIVEN) -> Schema:
        """See ``Source.publish``; the registry refuses what breaks the subject's compatibility mode."""

        def register() -> Schema:
            subject = self._subject(event)
            registered = self._registered(event, document, given)
            self._client.register_schema(subject, registered)
            version = self._client.lookup_schema(subject, registered).version or 1
            found = self._read(event, subject, version)
            if found is None:
                raise SchemaError(
                    f"subject {subject!r} holds schemas of another type than JSON; choose another schemas.subject"
                )
            return found

        return _asked(register)

    def set_compatibility(self, event: str, mode: str) -> None:
        """Set the subject's compatibility mode."""
        if mode not in _COMPATIBILITY:
            raise SchemaError(f"{mode!r} is no compatibility mode; it is one of {', '.join(_COMPATIBILITY)}")
        _asked(lambda: self._client.set_compatibility(self._subject(event), mode))


def _asked(question: Callable[[], T]) -> T:
    try:
        return question()
    except SchemaError:
        raise
    except Exception as error:  # the client raises its own errors, httpx's, OSError and ValueError
        raise SchemaError(
            f"the schema registry does not answer as it should: {type(error).__name__}: {error}"
        ) from error


def _require(document: Any, references: Mapping[str, Any], where: str) -> None:
    try:
        Checker(document, references)
    except SchemaError as error:
        raise SchemaError(f"{where}: {error}") from error


def _used(document: Any, references: Mapping[str, Any]) -> Mapping[str, Any]:
    """All references, if the document has any."""
    return references if b'"$ref"' in orjson.dumps(document) else {}
