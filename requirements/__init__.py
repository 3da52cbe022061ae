"""What is installed: the locked requirements, and a list of those that are in the image."""
