"""What leaves the process about calls: names that others know, and the forms that others read."""
