"""Make the read model anew, once `holdfast journal rebuild statement` has had it begin with the first event again."""

import asyncio

import bank
import read_side


async def main() -> None:
    wanted = read_side.entries()
    read_side.forget()
    async with bank.running(read_side.worker):
        await bank.until(lambda: read_side.entries() >= wanted)
    print(read_side.balances())


if __name__ == "__main__":
    asyncio.run(main())
