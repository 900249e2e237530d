"""Publishes in a hook of the commit, with an outbox that was made before SQLAlchemy was imported."""

from holdfast import Event, Settings
from holdfast.sql import Outbox

outbox = Outbox(Settings(_env_file=None), source="test")

from sqlalchemy import create_engine, event, text  # noqa: E402 (the order is what is tested)
from sqlalchemy.orm import Session  # noqa: E402

from holdfast.sql import ddl  # noqa: E402


class OrderCreated(Event, type="order.created"):
    """One that a web request publishes."""


engine = create_engine("sqlite://")
with engine.begin() as connection:
    for statement in ddl(dialect="sqlite"):
        connection.execute(text(statement))
with Session(engine) as session:
    event.listen(session, "before_commit", lambda session: outbox.publish(session, OrderCreated()))
    session.begin()
    session.commit()
    print(session.scalar(text("select count(*) from holdfast_events")))
