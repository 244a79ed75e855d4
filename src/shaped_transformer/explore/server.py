"""The server of the page: on the loopback interface only, behind a random token, for its own address only."""

import hmac
import io
import re
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dash import Dash
from flask import Flask, Response, abort, request, send_file
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from ..analysis.comparison import Comparison
from ..errors import InputError
from ..numerics import compilation
from . import limits
from .callbacks import client_name, register
from .desk import Desk
from .page import frame
from .pictures import pictures
from .state import SLOTS, State, read
from .work import Study, advance

HOST = "127.0.0.1"
"""The loopback interface: no other machine reaches it."""
INDEX = """<!DOCTYPE html>
<html lang="en">
<head>{%metas%}<title>{%title%}</title><link rel="icon" href="data:,">{%css%}</head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""
"""The page before its content; the viewport is among the metas."""


@dataclass(frozen=True, eq=False)
class Server:
    """A server that is bound to its port, and runs until it is closed.

    **Attributes:**

    - `url`: the address of the page, with its token.
    - `desk`: the clients and their work.
    - `http`: what answers requests.
    """

    url: str
    desk: Desk
    http: BaseWSGIServer

    def run(self) -> None:
        """Answer requests until the process is interrupted or the server closed."""
        try:
            self.http.serve_forever(poll_interval=0.1)
        finally:
            self.desk.close()
            self.http.server_close()

    def close(self) -> None:
        """Stop answering, and all work."""
        self.http.shutdown()


def start(port: int = 0, token: str | None = None) -> Server:
    """Return a server of the page, with compiled kernels loaded; `run` answers requests.

    **Arguments:**

    - `port`: number of the port on 127.0.0.1, default 0, any free one.
    - `token`: secret part of the address; `None` (the default) means a random one.

    **Returns:** a `Server`.

    **Raises:** `InputError` if the port is not free.
    """
    token = secrets.token_urlsafe(24) if token is None else token
    bound = _bind(port)
    port = bound.getsockname()[1]
    desk = Desk(present)
    app = application(desk, token, port)
    http = make_server(HOST, port, app.server, threaded=True, request_handler=_Quiet, fd=bound.detach())
    http.daemon_threads = True  # type: ignore[attr-defined]
    warm()
    return Server(f"http://{HOST}:{port}/{token}/", desk, http)


def _bind(port: int) -> socket.socket:
    """Return a socket that listens on a port.

    **Raises:** `InputError` if it is not free, or no port.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
        bound.listen(128)
    except (OSError, OverflowError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"port {port} cannot be used ({reason}): choose another --port, or 0 for any free one"
        ) from None
    return bound


class _Quiet(WSGIRequestHandler):
    """Answers without a line on standard error for each, in which the token would stand."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the name is Werkzeug's
        """Print nothing."""


def warm() -> None:
    """Load what the first change needs: the kernels, and what draws pictures."""
    compilation.load_all()
    study = Study(read(State.of_query("width=16&depth=2&tokens=2")).subjects["a"])
    for _ in range(2):
        study = advance(study)
    present(study)


def present(study: Study) -> Any:
    """Return the pictures of a study; none before its first paths."""
    return pictures(study.ensembles) if "chain" in study.ensembles else None


def application(desk: Desk, token: str, port: int) -> Dash:
    """Return the application.

    **Arguments:**

    - `desk`: where the work is done.
    - `token`: first part of all paths; a request without it is refused.
    - `port`: the port in the addresses under which it may be asked.
    """
    app = Dash(
        __name__,
        url_base_pathname=f"/{token}/",
        serve_locally=True,
        suppress_callback_exceptions=True,
        title="Shaped Transformer explorer",
        update_title="",
        index_string=INDEX,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
        add_log_handler=False,
        enable_mcp=False,
        websocket_callbacks=False,
    )
    app.layout = frame()
    register(app, desk)
    flask: Flask = app.server
    flask.config["MAX_CONTENT_LENGTH"] = limits.MOST_REQUEST
    flask.before_request(guard(token, {f"{name}:{port}" for name in (HOST, "localhost")}))
    flask.after_request(_headers(app))
    flask.add_url_rule(
        f"/{token}/download/<client>/<slot>/<file>",
        "download",
        lambda client, slot, file: download(desk, client, slot, file),
    )
    return app


def guard(token: str, hosts: set[str]) -> Callable[[], None]:
    """Return a check of every request: the address it was sent to, its origin, its token and its size.

    The `Host` header is checked because a page elsewhere can make its own name mean 127.0.0.1 (DNS rebinding).

    **Arguments:**

    - `token`: the first part of the path must be this.
    - `hosts`: what the headers may name.
    """
    origins = {f"http://{host}" for host in hosts}

    def check() -> None:
        if request.headers.get("Host", "") not in hosts:
            abort(Response("This address is not served.\n", 403, mimetype="text/plain"))
        origin = request.headers.get("Origin")
        if origin is not None and origin not in origins:
            abort(Response("Requests of other pages are refused.\n", 403, mimetype="text/plain"))
        given = request.path.split("/")[1]
        if not hmac.compare_digest(given.encode(), token.encode()):
            abort(
                Response(
                    "The token is missing or old: open the whole address that the command printed.\n",
                    403,
                    mimetype="text/plain",
                )
            )
        if len(request.full_path) > limits.MOST_REQUEST or (request.content_length or 0) > limits.MOST_REQUEST:
            abort(Response(f"A request has at most {limits.MOST_REQUEST} bytes.\n", 413, mimetype="text/plain"))

    return check


def _headers(app: Dash) -> Callable[[Response], Response]:
    """Return what adds the headers that keep the page to itself."""
    found: list[str] = []

    def add(response: Response) -> Response:
        if not found:
            found.append(
                f"default-src 'self'; script-src 'self' {' '.join(app.csp_hashes())}; "
                "style-src 'self' 'unsafe-inline'; "
                "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; "
                "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            )
        response.headers["Content-Security-Policy"] = found[0]
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        if not re.search(r"/_dash-component-suites/", request.path):
            response.headers["Cache-Control"] = "no-store"
        return response

    return add


_plotting = threading.Lock()


def download(desk: Desk, client: str, slot: str, file: str) -> Response:
    """Return a file with what was drawn of a design: its dataset or its picture."""
    try:
        known = desk.clients.get(client_name(client))
    except ValueError:
        known = None
    shown = known.shown(slot) if known is not None and slot in SLOTS else None
    if shown is None or file not in ("dataset.zip", "picture.png"):
        abort(Response("Nothing was drawn under this address: reload the page.\n", 404, mimetype="text/plain"))
    data = Comparison(shown.study.ensembles, {}, None).to_datatree()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if file == "dataset.zip":
            data.to_zarr(place / "dataset.zarr", zarr_format=2)
            made = Path(shutil.make_archive(str(place / "dataset"), "zip", place, "dataset.zarr"))
        else:
            from ..plotting import comparison, style

            with _plotting:
                style.save(comparison.plot(data), place / "picture")
            made = place / "picture.png"
        content = io.BytesIO(made.read_bytes())
    return send_file(content, as_attachment=True, download_name=f"design-{slot}-{file}")
