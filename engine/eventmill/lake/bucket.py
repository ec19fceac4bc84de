"""The lake in a bucket of S3, or of a server that speaks its protocol."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs
from pyiceberg.io.pyarrow import PyArrowFileIO

from eventmill.core.config import LakeConfig
from eventmill.core.errors import ConfigError, StoreError, StoreUnavailable
from eventmill.lake.storage import Storage

_SCHEME: Final = "s3://"
_REGION: Final = "us-east-1"
_CONNECT_S: Final = 5
_REQUEST_S: Final = 30
#: How the AWS SDK spells that it is the keys which are wrong.
_DENIED: Final = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|EXPIRED_TOKEN|"
    r"UserNotFound|HTTP status 40[13]|HTTP response code: 40[13]"
)


class Bucket(Storage):
    """``settings.warehouse`` is ``s3://BUCKET/PREFIX``; the table lies below it. Paths are locations.

    Keys come from the settings, else from where AWS's own tools look (environment, profile, the machine's role). Raises
    ``ConfigError`` for settings that cannot be, ``StoreError`` when the bucket cannot be reached or the keys are refused.
    """

    remote = True

    def __init__(self, settings: LakeConfig) -> None:
        url = urlsplit(settings.warehouse)
        if url.scheme != "s3" or not url.netloc or url.query or url.fragment:
            raise ConfigError(f"lake.warehouse = {settings.warehouse!r} is not s3://BUCKET/PREFIX")
        if bool(settings.access_key_id) != bool(settings.secret_access_key):
            raise ConfigError("lake.access_key_id and lake.secret_access_key go together; set both, or neither")
        self._bucket, self._endpoint = url.netloc, settings.endpoint.rstrip("/")
        self._region = (
            settings.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or _REGION
        )
        self.recorded = f"{_SCHEME}{url.netloc}{url.path.rstrip('/')}/eventmill/events"
        given = {
            "s3.endpoint": self._endpoint,
            "s3.access-key-id": settings.access_key_id,
            "s3.secret-access-key": settings.secret_access_key,
            "s3.region": self._region,
            "s3.connect-timeout": str(_CONNECT_S),
            "s3.request-timeout": str(_REQUEST_S),
        }
        self.properties = {
            "py-io-impl": f"{PyArrowFileIO.__module__}.{PyArrowFileIO.__name__}",
            **{name: value for name, value in given.items() if value},
        }
        if settings.access_key_id:
            # The embedded ClickHouse takes them from here, so that no statement, and no file of its own, has them.
            os.environ["AWS_ACCESS_KEY_ID"] = settings.access_key_id
            os.environ["AWS_SECRET_ACCESS_KEY"] = settings.secret_access_key
            os.environ.pop("AWS_SESSION_TOKEN", None)
        self.filesystem = PyArrowFileIO(self.properties).fs_by_scheme("s3", self._bucket)
        self._probe()

    def _probe(self) -> None:
        """Ask for the bucket once, so that what is wrong shows at the start."""
        try:
            self.filesystem.get_file_info(fs.FileSelector(self._key(self.recorded), allow_not_found=True))
            known = self.filesystem.get_file_info(self._bucket).type is fs.FileType.Directory
        except OSError as error:
            raise StoreError(self.reason(error)) from error
        if not known:
            raise StoreError(f"there is no bucket {self._bucket} at {self._server}; make it, or mend lake.warehouse")

    @property
    def _server(self) -> str:
        return self._endpoint or f"AWS, {self._region}"

    def reason(self, error: BaseException) -> str:
        """What an error of the store means, and its cure. Neither holds a key."""
        if _DENIED.search(str(error)):
            return (
                f"the bucket {self._bucket} at {self._server} refuses the credentials; check lake.access_key_id and "
                "lake.secret_access_key (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), and what they may do"
            )
        code = re.search(r"AWS Error (\w+)", str(error))
        what = code[1] if code else type(error).__name__
        return f"the bucket {self._bucket} at {self._server} does not answer as it should ({what}); check lake.endpoint"

    def failure(self, what: str, error: BaseException, cure: str = "") -> StoreError:
        """See ``Storage``."""
        if isinstance(error, StoreError):
            return error
        if isinstance(error, FileNotFoundError):
            return StoreError(f"{what}: it is not there; {cure}" if cure else f"{what}: it is not there")
        return StoreUnavailable(f"{what}: {self.reason(error)}")

    def path(self, location: str) -> str:
        """See ``Storage``."""
        if not location.startswith(self.recorded + "/"):
            raise StoreError(f"the lake refers to {location}, outside its folder {self.recorded}; it is not ours")
        return location

    def beside(self, name: str) -> Bucket:
        """See ``Storage``."""
        other = copy.copy(self)
        other.recorded = f"{self.recorded.rpartition('/')[0]}/{name}"
        return other

    def _key(self, path: str) -> str:
        return path.removeprefix(_SCHEME)

    @contextmanager
    def write(self, path: str) -> Iterator[pa.NativeFile]:
        """See ``Storage``."""
        with self.filesystem.open_output_stream(self._key(path)) as sink:
            yield sink

    def read(self, path: str) -> pa.NativeFile:
        """See ``Storage``."""
        return self.filesystem.open_input_file(self._key(path))

    def remove(self, path: str) -> None:
        """See ``Storage``."""
        try:
            self.filesystem.delete_file(self._key(path))
        except FileNotFoundError:
            pass

    def list(self) -> list[tuple[str, int]]:
        """See ``Storage``."""
        chosen = fs.FileSelector(self._key(self.recorded), recursive=True, allow_not_found=True)
        found = self.filesystem.get_file_info(chosen)
        return sorted((_SCHEME + file.path, file.size) for file in found if file.type is fs.FileType.File)

    def modified_ms(self, path: str) -> int:
        """See ``Storage``."""
        return int(self.filesystem.get_file_info(self._key(path)).mtime_ns or 0) // 1_000_000

    def exists(self, path: str) -> bool:
        """See ``Storage``."""
        return bool(self.filesystem.get_file_info(self._key(path)).type is fs.FileType.File)

    def source_sql(self, metadata: str) -> str:
        """See ``Storage``."""
        place = self.recorded.removeprefix(f"{_SCHEME}{self._bucket}/")
        server = f"{self._endpoint}/{self._bucket}" if self._endpoint else self._aws()
        url = f"{server}/{place}/".replace("\\", "\\\\").replace("'", "\\'")
        file = metadata.removeprefix(self.recorded + "/").replace("\\", "\\\\").replace("'", "\\'")
        return f"icebergS3('{url}', SETTINGS iceberg_metadata_file_path = '{file}')"

    def _aws(self) -> str:
        return f"https://{self._bucket}.s3.{self._region}.amazonaws.com"
