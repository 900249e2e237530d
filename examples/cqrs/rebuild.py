"""Throw the read model away and make it anew from the journal."""

import read_side
import write_side

if __name__ == "__main__":
    with write_side.journal() as db:
        read_side.rebuild(write_side.history(db))
    print(read_side.balances())
