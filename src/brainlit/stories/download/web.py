"""Files of an ordinary web server, through requests."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from brainlit.stories.download.remote import (
    ATTEMPTS,
    CHUNK_BYTES,
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    DownloadError,
    Host,
    RefusedError,
    RemoteFile,
    RestartError,
    UnreachableError,
)

BUSY = (429, 500, 502, 503, 504)
NO_HEAD = (403, 405, 501)
_TOTAL = re.compile(r"bytes \d+-\d+/(\d+)$")


class WebHost(Host):
    """A folder of a web server; its files are asked for by name.

    Proxies, certificates and passwords are taken from where requests finds them: HTTPS_PROXY, REQUESTS_CA_BUNDLE,
    ~/.netrc.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._threads = threading.local()

    def look(self, path: str, again: bool = False) -> RemoteFile | None:
        """HEAD, or a GET whose body is not read where the server does not know HEAD."""
        with self._answer("HEAD", path) as answer:
            if answer.status_code not in NO_HEAD and "Content-Length" in answer.headers:
                return self._remote_file(path, answer)
        with self._answer("GET", path) as answer:
            return self._remote_file(path, answer)

    def read(self, file: RemoteFile, start: int) -> Generator[bytes, None, None]:
        """GET from `start` on."""
        from requests.exceptions import RequestException
        from urllib3.exceptions import HTTPError

        with self._answer("GET", file.path, {"Range": f"bytes={start}-"} if start else {}) as answer:
            if start and answer.status_code in (200, 416):
                raise RestartError(f"{self.url} sends {file.path} only from its beginning.")
            now = self._remote_file(file.path, answer)
            if now is None:
                raise DownloadError(f"{file.path} is no longer at {self.url}.")
            if (now.version, now.n_bytes) != (file.version, file.n_bytes):
                raise RestartError(f"{file.path} was published anew.")
            try:
                yield from answer.iter_content(CHUNK_BYTES)
            except (RequestException, HTTPError) as error:
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
        total = _TOTAL.match(answer.headers.get("Content-Range", ""))
        n_bytes = total[1] if total else answer.headers.get("Content-Length")
        if n_bytes is None:
            raise DownloadError(f"{answer.url} does not say how large it is, so it could not be told whether all came.")
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
            answer = self._session().request(
                method,
                address,
                headers=headers,
                stream=True,
                allow_redirects=True,
                timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
            )
        except RequestException as error:
            raise UnreachableError(f"{address} cannot be reached ({error}).") from error
        with answer:
            if answer.status_code in BUSY:
                raise UnreachableError(f"{address} is busy ({answer.status_code} {answer.reason}).")
            yield answer

    def _session(self) -> Any:
        """One session for each thread; it sends a request again where the server is busy or not there."""
        if not hasattr(self._threads, "session"):
            import requests
            from requests.adapters import HTTPAdapter
            from urllib3 import Retry

            retry = Retry(ATTEMPTS - 1, backoff_factor=0.5, status_forcelist=BUSY, raise_on_status=False)
            session = requests.Session()
            session.headers["Accept-Encoding"] = "identity"  # the bytes as they are published
            for scheme in ("https://", "http://"):
                session.mount(scheme, HTTPAdapter(max_retries=retry))
            self._threads.session = session
        return self._threads.session
