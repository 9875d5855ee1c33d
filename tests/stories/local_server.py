"""A server on this machine that speaks enough S3 and enough HTTP for a download, and fails on request."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "laboratory"
PAGE = 3
"""Entries on one page of a listing, few so that there are several pages."""
CHUNK_BYTES = 64 << 10


@dataclass(frozen=True)
class Request:
    """What was asked: `key` is '' for a listing."""

    method: str
    key: str
    range: str = ""
    prefix: str = ""


@dataclass
class LocalServer:
    """Objects of one bucket, what was asked for, and what is to go wrong.

    Parameters
    ----------
    objects : dict of key to bytes
    part_bytes : dict of key to int
        Objects that count as uploaded in parts of that size.
    tells_parts : bool
        Whether HEAD of a part tells its size.
    checksums : dict of key to header fields
        Told when ChecksumMode asks for them.
    busy : int
        So many requests are answered with 503.
    status : dict of key to int
        Objects that are answered with that status.
    cut_after : dict of key to list of int
        Each GET of the object takes one number and ends the connection after so many bytes of its body.
    wrong : Counter of key
        So many GETs of the object give changed bytes.
    knows_range : bool
        Whether a GET may begin in the middle.
    is_s3 : bool
        Whether answers look like those of S3; otherwise those of a plain web server with Last-Modified.
    headers : dict
        Further header fields of every answer about an object.
    beyond : dict of key to bytes
        What a GET of the object sends after the size that it announces.
    pause_s : float
        Between chunks of a body.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    part_bytes: dict[str, int] = field(default_factory=dict)
    tells_parts: bool = True
    checksums: dict[str, dict[str, str]] = field(default_factory=dict)
    busy: int = 0
    status: dict[str, int] = field(default_factory=dict)
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    wrong: Counter[str] = field(default_factory=Counter)
    knows_range: bool = True
    is_s3: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    beyond: dict[str, bytes] = field(default_factory=dict)
    pause_s: float = 0.0
    log: list[Request] = field(default_factory=list)
    bucket: str = BUCKET

    def start(self) -> None:
        """Answer from a thread until `stop`."""
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_data": self}))
        self._http.daemon_threads = True
        threading.Thread(target=lambda: self._http.serve_forever(poll_interval=0.01), daemon=True).start()

    def stop(self) -> None:
        """No connection is accepted from now on."""
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def gets(self, key: str | None = None) -> list[Request]:
        """GETs of objects (of one object), without listings."""
        return [r for r in self.log if r.method == "GET" and r.key and key in (None, r.key)]

    def etag(self, key: str) -> str:
        """As S3 makes it."""
        content, size = self.objects[key], self.part_bytes.get(key)
        if size is None:
            return hashlib.md5(content).hexdigest()
        digests = [hashlib.md5(content[k : k + size]).digest() for k in range(0, len(content), size)]
        return f"{hashlib.md5(b''.join(digests)).hexdigest()}-{len(digests)}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_data: LocalServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def _answer(self) -> None:
        server, parts = self.server_data, urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        server.log.append(Request(self.command, key, self.headers.get("Range", ""), query.get("prefix", "")))
        if server.busy > 0:
            server.busy -= 1
            self._send(503, {"Retry-After": "0"}, b"")
        elif bucket != server.bucket:
            self._send(404, {}, b"<Error><Code>NoSuchBucket</Code></Error>")
        elif not key:
            self._send(200, {"Content-Type": "application/xml"}, _listing(server.objects, server.etag, query))
        elif key in server.status or key not in server.objects:
            self._send(server.status.get(key, 404), {}, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._object(key, query)

    def _object(self, key: str, query: dict[str, str]) -> None:
        server, content = self.server_data, self.server_data.objects[key]
        fields = dict(server.headers)
        if server.is_s3:
            fields |= {"ETag": f'"{server.etag(key)}"', "x-amz-request-id": "1"}
            if self.headers.get("x-amz-checksum-mode"):
                fields |= server.checksums.get(key, {})
        status, start, total = 200, 0, len(content)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and server.knows_range:
            status, start = 206, int(wanted[1])
            fields["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        if self.command == "GET" and server.wrong[key] > 0:
            server.wrong[key] -= 1
            content = bytes([content[0] ^ 1]) + content[1:] if start == 0 else content[:-1] + bytes([content[-1] ^ 1])
        content = content[start:]
        if "partNumber" in query and server.tells_parts:
            size = server.part_bytes.get(key, total)
            content = content[(int(query["partNumber"]) - 1) * size :][:size]
        self._send(status, fields, content, key)

    def _send(self, status: int, fields: dict[str, str], body: bytes, key: str = "") -> None:
        self.send_response(status)
        beyond = self.server_data.beyond.get(key) if self.command == "GET" else None
        if beyond:
            fields = {"Content-Length": str(len(body)), "Transfer-Encoding": "chunked"} | fields
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body, beyond, b""))
        for name, value in ({"Content-Length": str(len(body))} | fields).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cuts = self.server_data.cut_after.get(key, [])
        end = cuts.pop(0) if cuts else len(body)
        try:
            for k in range(0, end, CHUNK_BYTES):
                self.wfile.write(body[k : min(k + CHUNK_BYTES, end)])
                time.sleep(self.server_data.pause_s)
        except OSError:
            self.close_connection = True  # the other side has gone
            return
        if end < len(body):
            with suppress(OSError):  # the other side has gone
                self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True


def _listing(objects: dict[str, bytes], etag: object, query: dict[str, str]) -> bytes:
    """One page of ListObjectsV2 with '/' as delimiter."""
    prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
    rows: dict[str, str] = {}
    for key in sorted(objects):
        if not key.startswith(prefix):
            continue
        name, slash, _ = key.removeprefix(prefix).partition("/")
        if slash:
            folder = f"{prefix}{name}/"
            rows[folder] = f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
        else:
            told = f"<ETag>&quot;{etag(key)}&quot;</ETag><Size>{len(objects[key])}</Size>"  # type: ignore[operator]
            rows[key] = f"<Contents><Key>{escape(key)}</Key>{told}</Contents>"
    names = [name for name in sorted(rows) if name > after]
    more = len(names) > PAGE
    token = f"<NextContinuationToken>{escape(names[PAGE - 1])}</NextContinuationToken>" if more else ""
    body = "".join(rows[name] for name in names[:PAGE])
    flag = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
    return f'<?xml version="1.0"?><ListBucketResult>{flag}{token}{body}</ListBucketResult>'.encode()
