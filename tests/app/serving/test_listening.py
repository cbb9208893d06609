"""Where a server listens."""

from __future__ import annotations

import asyncio
import socket

import pytest

from priorflow.serving.listening import listening


def test_small_answers_are_sent_at_once() -> None:
    """As asyncio sees it: a connection that was accepted does not wait for acknowledgements."""

    async def delay_of_an_accepted_one() -> int:
        made, found = listening("127.0.0.1", 0), asyncio.get_running_loop().create_future()

        def met(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            found.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(met, sock=made):
            _, writer = await asyncio.open_connection(*made.getsockname())
            nodelay: int = await found
            writer.close()
            await writer.wait_closed()
        return nodelay

    assert asyncio.run(delay_of_an_accepted_one()) == 1


def test_a_port_that_is_taken_is_an_error() -> None:
    with listening("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        listening(*first.getsockname())
