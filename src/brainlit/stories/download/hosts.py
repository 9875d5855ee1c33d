"""What a place that publishes files can do: say what is there, and give the bytes from a given one on."""

from __future__ import annotations

import base64
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any
from urllib.parse import quote, urljoin

from brainlit.stories.base import SourceError

_WILDCARDS = "*?["
CHUNK_BYTES = 1 << 20
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 10, 30
ATTEMPTS = 5
"""How often the clients themselves send a request that meets a busy server or no server, waiting longer each time."""


class DownloadError(SourceError):
    """Files that could not be fetched; the message names them, the cause and what to do.

    Attributes
    ----------
    failures : dict of path to reason
        Empty where the whole download was refused before it began.
    """

    def __init__(self, message: str, failures: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.failures = dict(failures or {})


class UnreachableError(DownloadError):
    """No answer, a broken connection, or an answer that says 'later': worth another try."""


class RefusedError(DownloadError):
    """The server knows what is asked for, or does not say, and gives nothing."""


class RestartError(DownloadError):
    """The bytes that are here are of no use: the published file changed, or the server cannot begin in the middle."""


@dataclass(frozen=True)
class RemoteFile:
    """One published file.

    Parameters
    ----------
    path : str
        Below the data set's url, with forward slashes.
    n_bytes : int
    version : str
        Changes with the content: the ETag, else the time of the last change; empty where the server tells neither.
    etag : str or None
        '<md5>' or '<md5 of md5s>-<parts>' where the service is known to make its ETags so (S3).
    """

    path: str
    n_bytes: int
    version: str
    etag: str | None = None


class Host(ABC):
    """A server that publishes a data set. Used by several threads at once."""

    @abstractmethod
    def stat(self, path: str, again: bool = False) -> RemoteFile | None:
        """Size and version of one file; None if it is not there. `again`: as they are now, whatever was seen before."""

    @abstractmethod
    def read(self, file: RemoteFile, start: int) -> Generator[bytes, None, None]:
        """The file's bytes from `start` on.

        Raises
        ------
        RestartError
            If the file is no longer the one that `stat` saw, or the server sends it from its beginning only.
        UnreachableError
            If the connection fails or ends too early.
        """

    def match(self, pattern: str) -> list[RemoteFile]:
        """All files that match a pattern; wildcards do not cross folders."""
        raise DownloadError(
            f"{pattern!r} holds a wildcard, but a web server cannot be asked for what is in a folder. Name the files."
        )

    def neighbours(self, path: str) -> list[str]:
        """Paths of what lies in the same folder, or in the nearest folder above that exists; for hints."""
        return []

    def part_bytes(self, file: RemoteFile, n_parts: int) -> int | None:
        """Size of the parts in which a file was uploaded (the last may be smaller); None if that cannot be told."""
        return None

    def checksums(self, file: RemoteFile) -> Mapping[str, str]:
        """Checksums of the whole file in hexadecimal digits, by name ('sha256', 'sha1', 'crc32')."""
        return {}


def open_host(url: str, endpoint_url: str | None = None) -> Host:
    """The client for a url: 's3://bucket/prefix', 'https://host/folder' (or 'http://').

    Parameters
    ----------
    endpoint_url : str or None
        Another S3 service than Amazon's. None: the environment's AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else Amazon.
    """
    if url.startswith("s3://"):
        return S3Host(url, endpoint_url)
    if url.startswith(("https://", "http://")):
        return WebHost(url)
    raise DownloadError(f"the url {url!r} is of no known kind; known are s3://bucket/prefix and https://host/folder.")


def is_pattern(path: str) -> bool:
    """Whether a path holds '*', '?' or '['."""
    return any(character in path for character in _WILDCARDS)


def checked_path(path: str) -> str:
    """The path, if it stays below the folder that it is meant for.

    Raises
    ------
    DownloadError
        For absolute paths, '..' and the like, whoever they come from: the data set's description or the server.
    """
    if path.startswith("/") or "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise DownloadError(f"the path {path!r} is refused: it would not lie inside the data set's folder.")
    return path


# --- Web servers ---

_BUSY = (429, 500, 502, 503, 504)
_NO_HEAD = (403, 405, 501)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")
_PACKED_NAMES = {"gzip": (".gz", ".tgz"), "x-gzip": (".gz", ".tgz"), "compress": (".Z",), "x-compress": (".Z",)}
"""Encodings that some servers name for files that were packed before they were published."""


class WebHost(Host):
    """A folder of an ordinary web server, through requests; its files are asked for by name.

    Proxies, certificates and passwords are taken from where requests finds them: HTTPS_PROXY, REQUESTS_CA_BUNDLE,
    ~/.netrc.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._threads = threading.local()

    def stat(self, path: str, again: bool = False) -> RemoteFile | None:
        """HEAD, or a GET whose body is not read where the server does not know HEAD."""
        with self._answer("HEAD", path) as answer:
            if answer.status_code not in _NO_HEAD and "Content-Length" in answer.headers:
                return self._remote_file(path, answer)
        with self._answer("GET", path) as answer:
            return self._remote_file(path, answer)

    def read(self, file: RemoteFile, start: int) -> Generator[bytes, None, None]:
        """GET from `start` on; the bytes as they come, never unpacked."""
        from urllib3.exceptions import HTTPError

        with self._answer("GET", file.path, {"Range": f"bytes={start}-"} if start else {}) as answer:
            if start and answer.status_code in (200, 416):
                raise RestartError(f"{self.url} sends {file.path} only from its beginning.")
            now = self._remote_file(file.path, answer)
            if now is None:
                raise DownloadError(f"{file.path} is no longer at {self.url}.")
            if (now.version, now.n_bytes) != (file.version, file.n_bytes):
                raise RestartError(f"{file.path} was published anew.")
            sent = _RANGE.match(answer.headers.get("Content-Range", ""))
            if (int(sent[1]) if sent else 0) != start:
                raise RestartError(f"{self.url} sends {file.path} from another byte than the one asked for, {start}.")
            try:
                yield from answer.raw.stream(CHUNK_BYTES, decode_content=False)  # as announced, whatever it unpacks to
            except HTTPError as error:
                raise UnreachableError(f"the connection broke ({error}).") from error

    def _remote_file(self, path: str, answer: Any) -> RemoteFile | None:
        """Size and version from an answer's headers; None for 404."""
        if answer.status_code in (404, 410):
            return None
        if not answer.ok:
            raise RefusedError(f"{answer.url} is refused ({answer.status_code} {answer.reason}). Is it public?")
        kind = answer.headers.get("Content-Type", "")
        if kind.startswith("text/html") and not path.endswith((".html", ".htm")):
            raise RefusedError(f"{answer.url} gives a web page instead of the file. Does the server ask for a login?")
        packed = answer.headers.get("Content-Encoding", "identity").strip().lower()
        if packed not in ("", "identity") and not path.endswith(_PACKED_NAMES.get(packed, ("\0",))):
            raise RefusedError(
                f"{answer.url} is sent packed (Content-Encoding: {packed}), although the file as it is published was"
                " asked for, so its bytes cannot be checked. Ask whoever runs the server, or a proxy on the"
                " way, to send files as they are."
            )
        total, length = _RANGE.match(answer.headers.get("Content-Range", "")), answer.headers.get("Content-Length")
        n_bytes = total[3] if total else length
        if n_bytes is None:
            raise DownloadError(f"{answer.url} does not say how large it is, so it could not be told whether all came.")
        if not n_bytes.isdecimal():
            raise DownloadError(f"{answer.url} says that its size is {n_bytes!r}, which is no number of bytes.")
        if total and length is not None and length != str(int(total[2]) - int(total[1]) + 1):
            raise DownloadError(
                f"{answer.url} contradicts itself: it sends bytes {total[1]} to {total[2]} and says that these are"
                f" {length} (Content-Length). Try again later, or from another network."
            )
        etag = answer.headers.get("ETag", "").removeprefix("W/").strip('"')
        is_s3 = "x-amz-request-id" in answer.headers
        return RemoteFile(
            path, int(n_bytes), etag or answer.headers.get("Last-Modified", ""), (etag or None) if is_s3 else None
        )

    @contextmanager
    def _answer(self, method: str, path: str, headers: dict[str, str] | None = None) -> Iterator[Any]:
        from requests.exceptions import RequestException

        address = f"{self.url}/{quote(path)}"
        try:
            timeout = (_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S)
            answer = self._session().request(
                method, address, headers=headers, stream=True, allow_redirects=True, timeout=timeout
            )
        except RequestException as error:
            raise UnreachableError(f"{address} cannot be reached ({error}).") from error
        with answer:
            if answer.status_code in _BUSY:
                raise UnreachableError(f"{address} is busy ({answer.status_code} {answer.reason}).")
            yield answer

    def _session(self) -> Any:
        """One session for each thread; it sends a request again where the server is busy or not there."""
        if not hasattr(self._threads, "session"):
            from requests.adapters import HTTPAdapter
            from urllib3 import Retry

            retry = Retry(ATTEMPTS - 1, backoff_factor=0.5, status_forcelist=_BUSY, raise_on_status=False)
            session = _secure_session()
            session.headers["Accept-Encoding"] = "identity"  # the bytes as they are published
            for scheme in ("https://", "http://"):
                session.mount(scheme, HTTPAdapter(max_retries=retry))
            self._threads.session = session
        return self._threads.session


def _secure_session() -> Any:
    """A session of requests that goes on over https where it began so."""
    import requests

    class SecureSession(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> str | None:
            target = super().get_redirect_target(resp)
            if target is not None and resp.url.lower().startswith("https:"):
                onward = urljoin(resp.url, target)
                if not onward.lower().startswith("https:"):
                    raise RefusedError(
                        f"{resp.url} leads to {onward}, where anyone on the way could change what comes. Nothing was"
                        " asked for there; find an address that is https throughout."
                    )
            return target

    return SecureSession()


# --- S3 ---

_CHECKSUMS = {"sha256": "ChecksumSHA256", "sha1": "ChecksumSHA1", "crc32": "ChecksumCRC32"}
"""Those that Python can compute by itself."""
_MAX_NEIGHBOURS = 2000


class S3Host(Host):
    """A prefix of a bucket that anyone may read, through boto3 and without an account.

    Parameters
    ----------
    url : str
        's3://bucket/prefix'.
    endpoint_url : str or None
        Another service than Amazon's; None leaves it to boto3, which knows AWS_ENDPOINT_URL_S3.
    """

    def __init__(self, url: str, endpoint_url: str | None = None) -> None:
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not bucket:
            raise DownloadError(f"the url {url!r} names no bucket; it should be like s3://openneuro.org/ds003020.")
        self.url, self.bucket = url, bucket
        self.prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        self._client = _s3_client(endpoint_url)
        self._library_errors, self._network_errors = _s3_errors()
        self._listings: dict[str, tuple[dict[str, RemoteFile], list[str]]] = {}
        self._lock = threading.Lock()

    def stat(self, path: str, again: bool = False) -> RemoteFile | None:
        """HEAD of one object, unless its folder was listed already."""
        folder = path.rpartition("/")[0]
        if folder in self._listings and not again:
            return self._listings[folder][0].get(path)
        try:
            answer = self._call("head_object", path, Key=self.prefix + path)
        except FileNotFoundError:
            return None
        return _s3_file(path, answer["ContentLength"], answer.get("ETag", ""))

    def match(self, pattern: str) -> list[RemoteFile]:
        """Files that match, folder by folder."""
        *parents, last = pattern.split("/")
        folders = [""]
        for part in parents:
            folders = [below for folder in folders for below in self._below(folder, part)]
        found = (file for folder in folders for file in self._list(folder)[0].values())
        return [file for file in found if fnmatchcase(file.path.rpartition("/")[2], last)]

    def neighbours(self, path: str) -> list[str]:
        """Files and folders beside the path, from the nearest folder that holds anything."""
        folder = path.rpartition("/")[0]
        while True:
            try:
                files, folders = self._list(folder)
            except RefusedError:  # files may be read by name only
                return []
            if files or folders or not folder:
                return [*files, *folders][:_MAX_NEIGHBOURS]
            folder = folder.rpartition("/")[0]

    def read(self, file: RemoteFile, start: int) -> Generator[bytes, None, None]:
        """GET from `start` on, and only of the version that was seen."""
        given = {"Range": f"bytes={start}-"} if start else {}
        try:
            answer = self._call("get_object", file.path, Key=self.prefix + file.path, **given)
        except FileNotFoundError as error:
            raise DownloadError(f"{file.path} is no longer at {self.url}.") from error
        body = answer["Body"]
        try:
            if _version(answer.get("ETag", "")) != file.version:
                raise RestartError(f"{file.path} was published anew.")
            if start and "ContentRange" not in answer:
                raise RestartError(f"{self.url} sends files only from their beginning.")
            yield from body.iter_chunks(CHUNK_BYTES)
        except self._library_errors as error:
            raise UnreachableError(f"the connection broke ({error}).") from error
        finally:
            body.close()

    def part_bytes(self, file: RemoteFile, n_parts: int) -> int | None:
        """Size of the first part, if all but the last can be of that size.

        HEAD of a part tells it: https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html (PartNumber).
        """
        sizes = [self._details(file, PartNumber=k).get("ContentLength", 0) for k in (1, n_parts)]
        first, last = int(sizes[0]), int(sizes[1])
        fits = 0 < last <= first and (n_parts - 1) * first + last == file.n_bytes
        return first if fits else None

    def checksums(self, file: RemoteFile) -> Mapping[str, str]:
        """What the service stored beside the object, if it is about the whole object and not about its parts."""
        answer = self._details(file, ChecksumMode="ENABLED")
        if answer.get("ChecksumType") == "COMPOSITE":
            return {}
        found = {name: answer[field] for name, field in _CHECKSUMS.items() if field in answer}
        return {name: base64.b64decode(value).hex() for name, value in found.items() if "-" not in value}

    def _details(self, file: RemoteFile, **given: Any) -> Any:
        """HEAD with what not every service understands; empty where it does not."""
        try:
            return self._call("head_object", file.path, Key=self.prefix + file.path, **given)
        except UnreachableError:
            raise
        except (DownloadError, FileNotFoundError):
            return {}

    def _below(self, folder: str, part: str) -> list[str]:
        if not is_pattern(part):
            return [f"{folder}/{part}" if folder else part]
        return [below for below in self._list(folder)[1] if fnmatchcase(below.rpartition("/")[2], part)]

    def _list(self, folder: str) -> tuple[dict[str, RemoteFile], list[str]]:
        """Files and folders of one folder, asked for once."""
        with self._lock:  # held while asking, so that other threads wait for this answer and do not ask, too
            if folder not in self._listings:
                self._listings[folder] = self._listed(f"{self.prefix}{folder}/" if folder else self.prefix)
            return self._listings[folder]

    def _listed(self, prefix: str) -> tuple[dict[str, RemoteFile], list[str]]:
        files: dict[str, RemoteFile] = {}
        folders: list[str] = []
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, Delimiter="/"
            )
            for page in pages:
                for entry in page.get("Contents", []):
                    if not entry["Key"].endswith("/"):  # what consoles leave behind for an empty folder
                        path = checked_path(entry["Key"].removeprefix(self.prefix))
                        files[path] = _s3_file(path, entry["Size"], entry.get("ETag", ""))
                found = (entry["Prefix"] for entry in page.get("CommonPrefixes", []))
                folders += [name.removeprefix(self.prefix).rstrip("/") for name in found]
        except self._library_errors as error:
            raise self._explained(error, prefix) from error
        return files, folders

    def _call(self, operation: str, path: str, **given: Any) -> Any:
        """One request; FileNotFoundError where the object is not there."""
        try:
            return getattr(self._client, operation)(Bucket=self.bucket, **given)
        except self._library_errors as error:
            if _status(error) == 404 and _code(error) != "NoSuchBucket":
                raise FileNotFoundError(path) from error
            raise self._explained(error, path) from error

    def _explained(self, error: Exception, path: str) -> DownloadError:
        status = _status(error)
        if isinstance(error, self._network_errors) or status == 429 or (status or 0) >= 500:
            return UnreachableError(f"{self.url} cannot be reached ({error}).")
        if _code(error) == "NoSuchBucket":
            return DownloadError(f"there is no bucket {self.bucket!r} ({self.url}). Check the url of the data set.")
        if status == 403:
            return RefusedError(
                f"{self.url} refuses to show {path!r} (403). It is not public, or it is not there:"
                " some services do not tell the one from the other."
            )
        return DownloadError(f"{self.url} does not answer for {path!r} ({error}).")


def _s3_client(endpoint_url: str | None) -> Any:
    """A client that signs nothing, so that nobody's account is asked for or charged."""
    import botocore
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        signature_version=botocore.UNSIGNED,
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=16,
        response_checksum_validation="when_required",  # done here, on the file that lies on the disk
    )
    try:
        return _s3_session().client("s3", endpoint_url=endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise DownloadError(
            f"boto3 cannot be set up ({error}). Check AWS_PROFILE, AWS_ENDPOINT_URL_S3 and ~/.aws/config."
        ) from error


@cache
def _s3_session() -> Any:
    """One session for all clients: reading the description of the service takes most of the time."""
    import boto3

    return boto3.session.Session()


def _s3_errors() -> tuple[tuple[type[Exception], ...], tuple[type[Exception], ...]]:
    """What boto3 raises, and which of that means that nothing came back."""
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
    from urllib3.exceptions import HTTPError

    return (BotoCoreError, ClientError, HTTPError), (ConnectionError, HTTPClientError, HTTPError)


def _s3_file(path: str, n_bytes: int, etag: str) -> RemoteFile:
    return RemoteFile(path, int(n_bytes), _version(etag), _version(etag))


def _version(etag: str) -> str:
    return etag.strip('"')


def _status(error: Exception) -> int | None:
    status = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return int(status) if status is not None else None


def _code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
