"""What users test with (floor 5): the servers a test needs (`servers`) and the pytest fixtures for them (`plugin`)."""
