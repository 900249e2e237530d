"""The application, as Django lists it."""

from django.apps import AppConfig


class HoldfastConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """The application of Holdfast's tables, which have no models: nothing but Holdfast reads or writes them."""

    name = "holdfast.sql.django"
    label = "holdfast"
    verbose_name = "Holdfast"
