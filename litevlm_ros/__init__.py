"""LiteVLM for ROS 2: captions and answers about camera images, on the robot."""

import pkgutil

# The generated messages (litevlm_ros.msg, litevlm_ros.srv) live in the installed package. Extending the path lets
# them be imported when this source tree comes first on sys.path, as under pytest.
__path__ = pkgutil.extend_path(__path__, __name__)

__version__ = "0.1.0"
