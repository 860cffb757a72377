"""The ROS 2 node: cameras and questions come in, captions and answers go out."""
