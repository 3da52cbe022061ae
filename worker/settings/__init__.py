"""A command's settings: arguments, environment, files. No other package reads the environment."""
