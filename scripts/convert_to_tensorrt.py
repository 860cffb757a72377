"""`python scripts/convert_to_tensorrt.py`: the tool of that name, from a checkout that need not be installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from litevlm_ros.tools.build_engines import main

sys.exit(main())
