"""The parts that the launch files share. Without ROS's launch work `preflight` and `parameter_sections`, which the node
uses too."""
