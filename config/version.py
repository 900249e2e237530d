"""Which Holdfast this is."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("holdfast-rabbitmq")
except PackageNotFoundError:  # run from a checkout that was not installed
    VERSION = "0+unknown"
