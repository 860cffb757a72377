"""What the launch files share. The modules that import ROS's launch are not imported by the node."""
