"""The parts that the launch files share. Only `preflight` works without ROS's launch; the node imports none of them."""
