"""ROS 2 nodes. Only here: rclpy."""
