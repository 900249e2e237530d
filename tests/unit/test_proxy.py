import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from proxy import Direction, Proxy, proxy_to

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy in front of a server that echoes."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with proxy_to(f"amqp://{host}:{port}/") as proxy:
        yield proxy
    server.close()


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[Streams]:
    async with connected(proxy) as streams:
        yield streams


@contextlib.asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    yield reader, writer
    writer.transport.abort()


async def test_bytes_pass_both_ways(client: Streams) -> None:
    reader, writer = client

    writer.write(b"hello")

    assert await reader.readexactly(5) == b"hello"


async def test_the_url_keeps_all_but_host_and_port(proxy: Proxy) -> None:
    url = proxy.url("amqps://guest:p%40ss@broker.example:5671/%2Fvhost?heartbeat=5")

    assert url == f"amqps://guest:p%40ss@127.0.0.1:{proxy.port}/%2Fvhost?heartbeat=5"


async def test_a_cut_connection_is_reset(proxy: Proxy, client: Streams) -> None:
    reader, _ = client
    await proxy.until_connections(1)

    proxy.cut()

    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    await proxy.until_connections(0)


async def test_after_a_cut_a_new_connection_is_welcome(proxy: Proxy, client: Streams) -> None:
    await proxy.until_connections(1)

    proxy.cut()

    async with connected(proxy) as (reader, writer):
        writer.write(b"again")
        assert await reader.readexactly(5) == b"again"


async def test_a_silent_connection_can_be_cut(proxy: Proxy, client: Streams) -> None:
    reader, writer = client
    await proxy.until_connections(1)
    proxy.swallow()
    writer.write(b"unheard")

    proxy.cut()

    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    await proxy.until_connections(0)


async def test_refused_connections_fail_and_the_ones_there_live_on(proxy: Proxy, client: Streams) -> None:
    reader, writer = client
    await proxy.until_connections(1)

    await proxy.refuse()

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"alive")
    assert await reader.readexactly(5) == b"alive"


async def test_accepting_again_serves_on_the_same_port(proxy: Proxy) -> None:
    await proxy.refuse()

    await proxy.accept()

    async with connected(proxy) as (reader, writer):
        writer.write(b"back")
        assert await reader.readexactly(4) == b"back"


async def test_swallowed_bytes_arrive_once_the_proxy_resumes(proxy: Proxy, client: Streams) -> None:
    reader, writer = client
    proxy.swallow(Direction.TO_CLIENT)
    writer.write(b"held back")
    answer = asyncio.create_task(reader.readexactly(9))
    await proxy.until_withheld(Direction.TO_CLIENT)
    assert not answer.done()

    proxy.resume()

    assert await answer == b"held back"


async def test_a_connection_is_cut_after_the_bytes_it_was_granted(proxy: Proxy, client: Streams) -> None:
    reader, writer = client
    proxy.cut_after(7, Direction.TO_SERVER)

    writer.write(b"first, second")

    with pytest.raises(ConnectionResetError):
        await reader.readexactly(13)
    await proxy.until_connections(0)


async def test_a_connection_is_reset_when_the_server_is_away(unused_port: int) -> None:
    async with proxy_to(f"amqp://127.0.0.1:{unused_port}/") as proxy, connected(proxy) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read(1)


async def test_a_finished_client_ends_the_connection_in_order(proxy: Proxy, client: Streams) -> None:
    reader, writer = client
    writer.write(b"bye")

    writer.write_eof()

    assert await reader.read() == b"bye"
    await proxy.until_connections(0)


@pytest.fixture
def unused_port() -> int:
    from holdfast.testing.servers import free_port

    return free_port()
