"""The web page for dead letters (floor 5): what `holdfast dead` does, in a browser."""

from .access import Access
from .app import create_app
from .server import listen, serve

__all__ = ["Access", "create_app", "listen", "serve"]
