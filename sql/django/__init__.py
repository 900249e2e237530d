"""Holdfast's tables as an application of Django: `INSTALLED_APPS += ["holdfast.sql.django"]`, then `migrate`."""
