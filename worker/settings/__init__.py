"""What a command is asked for: arguments, environment, files. Nothing else reads the environment."""
