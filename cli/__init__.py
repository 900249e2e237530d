"""The command line (floor 6). `holdfast.cli.app:main` is the console script."""
