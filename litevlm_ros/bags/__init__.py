"""Captioning of recordings: reads and writes rosbag2 without ROS."""
