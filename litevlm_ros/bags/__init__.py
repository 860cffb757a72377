"""Recorded images in, recorded captions out: rosbag2, without ROS."""
