"""What a place that publishes files can do: say what is there, and give the bytes from a given one on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass

from brainlit.stories.base import SourceError

WILDCARDS = "*?["
CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10, 30
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
    def look(self, path: str, again: bool = False) -> RemoteFile | None:
        """Size and version of one file; None if it is not there. `again`: as they are now, whatever was seen before."""

    @abstractmethod
    def read(self, file: RemoteFile, start: int) -> Generator[bytes, None, None]:
        """The file's bytes from `start` on.

        Raises
        ------
        RestartError
            If the file is no longer the one that `look` saw, or the server sends it from its beginning only.
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


def is_pattern(path: str) -> bool:
    """Whether a path holds '*', '?' or '['."""
    return any(character in path for character in WILDCARDS)


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


def open_host(url: str, endpoint_url: str | None = None) -> Host:
    """The client for a url: 's3://bucket/prefix', 'https://host/folder' (or 'http://').

    Parameters
    ----------
    endpoint_url : str or None
        Another S3 service than Amazon's. None: the environment's AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else Amazon.
    """
    if url.startswith("s3://"):
        from brainlit.stories.download.s3 import S3Host

        return S3Host(url, endpoint_url)
    if url.startswith(("https://", "http://")):
        from brainlit.stories.download.web import WebHost

        return WebHost(url)
    raise DownloadError(f"the url {url!r} is of no known kind; known are s3://bucket/prefix and https://host/folder.")
