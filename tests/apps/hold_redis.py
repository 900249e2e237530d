"""A program that holds a private Redis until its standard input ends."""

from holdfast.testing.servers import private_redis

with private_redis() as server:
    print(server.pid, server.url, flush=True)
    input()
