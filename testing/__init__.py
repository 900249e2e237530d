"""What users test handlers with (floor 5)."""
