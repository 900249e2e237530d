"""The setup.py of the compiled wheel: mypyc compiles the modules that every message passes through.

`make compiled` unpacks the pure wheel into build/compiled, next to this file, and builds it there. Both wheels carry
the same Python files: an interpreter that finds no compiled module runs the file.
"""

from mypyc.build import mypycify
from setuptools import setup

MODULES = (
    "broker/amqp/confirms.py",
    "broker/amqp/consumer.py",
    "broker/amqp/deliveries.py",
    "broker/amqp/splitter.py",
    "broker/codec.py",
    "broker/clock.py",
    "broker/port.py",
    "consumer/claims.py",
    "consumer/decide.py",
    "consumer/dependencies.py",
    "consumer/following.py",
    "consumer/handler.py",
    "consumer/in_flight.py",
    "consumer/outcome.py",
    "consumer/pipeline.py",
    "consumer/run.py",
    "consumer/settle.py",
    "consumer/slots.py",
    "consumer/subscription.py",
    "events/body.py",
    "events/cloudevents.py",
    "events/codec.py",
    "events/envelope.py",
    "events/headers.py",
    "events/ids.py",
    "events/incoming.py",
    "events/message.py",
    "idempotency/boards.py",
    "idempotency/keys.py",
    "idempotency/port.py",
    "idempotency/redis/batches.py",
    "idempotency/redis/board.py",
    "idempotency/redis/store.py",
    "idempotency/worker_claims.py",
    "publisher/dispatch.py",
    "telemetry/log.py",
    "telemetry/metrics.py",
    "telemetry/queue_figures.py",
    "telemetry/shared_figures.py",
)

if __name__ == "__main__":
    setup(ext_modules=mypycify([f"holdfast/{module}" for module in MODULES], group_name="holdfast"))
