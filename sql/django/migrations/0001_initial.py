"""Version 1 of the schema."""

from typing import ClassVar

from django.db import migrations

from ..operations import MakeTables


class Migration(migrations.Migration):  # type: ignore[misc]  # Django has no types
    """The migration that makes the tables."""

    initial = True
    operations: ClassVar = [MakeTables()]
