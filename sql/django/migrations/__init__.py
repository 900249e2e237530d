"""The migrations of Holdfast's tables, one for each version of the schema."""
