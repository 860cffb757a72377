"""Runs the tool build_engines from a checkout that need not be installed: `python scripts/convert_to_tensorrt.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from litevlm_ros.tools.build_engines import main

sys.exit(main())
