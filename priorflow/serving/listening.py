"""A socket that listens, for a server to take."""

from __future__ import annotations

import socket


def listening(host: str, port: int) -> socket.socket:
    """Listen at an address; OSError if it cannot be had. Port 0 takes any that is free.

    Its protocol is named: asyncio sends small answers at once only on sockets that say they are TCP, and
    each would wait 40 ms for the other side's acknowledgement otherwise.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, _, _, address = found[0]
    made = socket.socket(family, kind, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen()
    except BaseException:
        made.close()
        raise
    return made
