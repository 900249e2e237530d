"""The contract of a worker as files: JSON Schema, what breaks whom, AsyncAPI, a page (floor 5)."""

from .asyncapi import asyncapi as asyncapi
from .catalogue import Catalogue as Catalogue
from .catalogue import Role as Role
from .catalogue import catalogue_of as catalogue_of
from .compare import RULES as RULES
from .compare import Finding as Finding
from .compare import compare as compare
from .files import check as check
from .files import read_schemas as read_schemas
from .files import write_schemas as write_schemas
from .page import page as page
from .schema import schema_of as schema_of
