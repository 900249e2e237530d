"""`holdfast doctor`: what of a broker, a claim store and a worker is unsafe together, and how to fix it."""

from .visit import examine_all as examine_all
