"""The operation that makes Holdfast's tables, by the statements of `holdfast sql schema`."""

from typing import Any

from django.db.migrations.operations.base import Operation

from ...config import load_settings
from ..schema import ddl, tables


class MakeTables(Operation):  # type: ignore[misc]  # Django has no types
    """The making of the tables in the schema of `HOLDFAST_SQL__SCHEMA`. Where they are there, nothing is done."""

    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change no model: there are none."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Make the tables."""
        settings, dialect = load_settings().sql, schema_editor.connection.vendor
        schema = settings.schema
        if not schema_editor.collect_sql and _are_there(schema_editor.connection, schema):
            return
        for statement in ddl(schema, dialect=dialect, keeps=settings.keeps):
            schema_editor.execute(statement, params=None)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Drop the tables, and with them the events that wait to be sent."""
        settings, dialect = load_settings().sql, schema_editor.connection.vendor
        schema = settings.schema
        for table in tables(schema, dialect=dialect, keeps=settings.keeps).tables:
            schema_editor.execute(f"drop table {table}", params=None)
        if dialect == "postgresql":
            schema_editor.execute(f"drop schema {schema}", params=None)

    def describe(self) -> str:
        """Return a line for `migrate` and `showmigrations`."""
        return "Make the tables of Holdfast"


def _are_there(connection: Any, schema: str) -> bool:
    if connection.vendor != "postgresql":
        return f"{schema}_cursors" in connection.introspection.table_names()
    with connection.cursor() as cursor:
        cursor.execute("select to_regclass(%s) is not null", [f"{schema}.cursors"])
        return bool(cursor.fetchone()[0])
