"""Where the tests in a browser keep their pictures."""

import os
from pathlib import Path

PICTURES = Path(os.environ.get("HOLDFAST_TEST_PICTURES", "pictures"))
