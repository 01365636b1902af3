"""Serves the dashboard of a runs folder: token, socket, server.

A public share link is impossible: Gradio's `launch`, which reads GRADIO_SHARE, is never called.
"""

import asyncio
import gc
import ipaddress
import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from workbench.core.errors import ConfigError
from workbench.view.server import app as application

DEFAULT_PORT = 7860
TRIES = 20
"""Ports from the default one on that are tried when it is busy."""


def serve(
    root: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    token: str | None = None,
    use_token: bool = True,
    allow_hosts: Sequence[str] = (),
    read_only: bool = False,
    announce: Callable[[str], None] = print,
) -> None:
    """Serves the dashboard of the runs below `root` until it is interrupted.

    `port` None takes 7860 or the next free one; 0 takes any. Without `token` a random one is made. With
    `read_only` runs can be viewed and nothing else. Raises ConfigError (busy port, open network without a token) and RunError (runs cannot be kept in `root`).
    """
    check_host(host, use_token)
    key = (token or secrets.token_urlsafe(24)) if use_token else None
    listener = listen(host, port)
    try:
        address = f"http://{_shown(host)}:{listener.getsockname()[1]}/"
        names = [*allow_hosts, *([] if _is_any(host) else [_shown(host)])]
        built = application.build(root, token=key, hosts=names, read_only=read_only)
        # Objects of imported modules stay: a garbage collection during a request need not walk them.
        gc.collect()
        gc.freeze()
        # Requests are not logged: the first one carries the token.
        settings = uvicorn.Config(
            built, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2
        )
        logging.getLogger("httpx").setLevel(logging.WARNING)
        announce(f"The workbench is at {address}{f'?token={key}' if key else ''}")
        if _is_any(host) and not allow_hosts:
            announce("Other machines reach it only under a name you allow: start it with --allow-host NAME.")
        logging.getLogger("uvicorn.error").addFilter(_is_worth_logging)
        uvicorn.Server(settings).run(sockets=[listener])
    finally:
        listener.close()


def _is_worth_logging(record: logging.LogRecord) -> bool:
    """Whether to log it. A page that is open when the server stops is disconnected: that needs no traceback."""
    cut = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not cut and "timeout graceful shutdown exceeded" not in record.getMessage()


def check_host(host: str, use_token: bool) -> None:
    """Raises ConfigError for a dashboard that is open to the network without a token."""
    if use_token or _is_loopback(host):
        return
    message = (
        f"host = {host} opens the dashboard to the network, and it runs code: that needs the token. "
        "Leave --no-token out, or use "
        "127.0.0.1."
    )
    raise ConfigError(message, {"host": message})


def listen(host: str, port: int | None) -> socket.socket:
    """A bound socket: on `port`, or on the first free one from the default on. Raises ConfigError."""
    wanted = [port] if port is not None else list(range(DEFAULT_PORT, DEFAULT_PORT + TRIES))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in wanted:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, candidate))
            listener.listen(128)
        except (OSError, OverflowError) as error:
            listener.close()
            reason = getattr(error, "strerror", None) or str(error)
            continue
        return listener
    tried = f"port = {wanted[0]}" if len(wanted) == 1 else f"Ports {wanted[0]} to {wanted[-1]}"
    message = (
        f"{tried} on {host} cannot be used: {reason}. Close what listens there, or give another --port "
        "(0 takes any free one)."
    )
    raise ConfigError(message, {"port": message})


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_any(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")


def _shown(host: str) -> str:
    """The host as written in a URL."""
    if _is_any(host):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
