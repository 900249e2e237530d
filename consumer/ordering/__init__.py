"""Order per key: one owner of a queue, lanes of keys, and the ledger in which events wait behind one that failed."""

from .ordered import Ordered as Ordered
