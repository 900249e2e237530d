"""Order per key: one owner of a queue, lines of keys, and the ledger in which events wait behind one that failed.

A queue's owner is the worker process that is the single active consumer of its ledger: RabbitMQ chooses it. (A claim's
owner is a worker process of any kind.) From the handler to one event, each class in a module of its name:

    Partitions   the queues of a handler; with several, `Share` bounds those that this process owns
    Partition    one of them: in line for it, its owner, or neither while a store is unavailable
    Ownership    the steps by which this process becomes the owner
    Backlog      what earlier owners left in the ledger, as it is read
    Seat         an owner's channels, record and epoch; a `Desk` is what all owners of the queue share
    Tenure       the time as owner: it takes, runs and removes events, and writes to the ledger by a `Writer`
    Intake       the same for the queue that feeds several partitions: key -> partition is crc32, modulo their number
    KeyLine      the events of one key, and which is next (`keys.py`); its lane is not the `Lane` of `slots.py`
    Turn         the right of one event to run (`turns.py`): to the pipeline, the consumer of its delivery

`ledger.py` has the entries of a ledger, `commands.py` and `asking.py` what an operator asks an owner.
"""

from .ordered import Ordered as Ordered
