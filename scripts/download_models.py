"""Runs the tool download_models from a checkout that need not be installed: `python scripts/download_models.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from litevlm_ros.tools.download_models import main

sys.exit(main())
