"""A program without an event loop, which forks: an open publisher is its parent's alone."""

import os

from holdfast import BlockingPublisher, Event, PublishError


class Paid(Event, type="paid"):
    order: str = "o-1"


publisher = BlockingPublisher(source="script")  # opened by its first use, and closed by the end of the program


def say(line: str, parent: int) -> None:
    print(line.replace(str(os.getpid()), "C").replace(str(parent), "P"), flush=True)


def main() -> None:
    parent = os.getpid()
    publisher.publish(Paid())
    print("parent published", flush=True)
    if (child := os.fork()) == 0:
        try:
            publisher.publish(Paid())
        except PublishError as error:
            say(f"child: {type(error).__name__}: {error}", parent)
        with BlockingPublisher(source="child") as own:
            own.publish(Paid())
            print("child published with its own", flush=True)
        return
    os.waitpid(child, 0)
    publisher.publish(Paid())
    print("parent published again", flush=True)


if __name__ == "__main__":
    main()
