"""A small HTTP server for tests of downloads: byte ranges, cut connections, wrong answers."""

from __future__ import annotations

import http.server
import threading


class Server:
    """Serves one body, with byte ranges unless told otherwise, and can cut the connection."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.ranges = True
        self.etag: str | None = '"v1"'
        self.cuts: list[int] = []
        """For each coming request: after how many bytes of its answer the connection is cut."""
        self.announce = True
        self.status = 0
        """Answer every request with this error, if not 0."""
        self.seen: list[dict[str, str]] = []
        """Headers of the requests."""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/file"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.seen.append(dict(request.headers.items()))
        if self.status:
            request.send_error(self.status)
            return
        start = 0
        asked = request.headers.get("Range")
        unchanged = request.headers.get("If-Range") in (None, self.etag)
        if asked and self.ranges and unchanged:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            if start >= len(self.body):
                request.send_error(416)
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        else:
            request.send_response(200)
        if self.etag:
            request.send_header("ETag", self.etag)
        if self.announce:
            request.send_header("Content-Length", str(len(self.body) - start))
        request.end_headers()
        rest = self.body[start:]
        request.wfile.write(rest[: self.cuts.pop(0)] if self.cuts else rest)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
