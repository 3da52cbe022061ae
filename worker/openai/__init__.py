"""OpenAI's Admin API, what a run knows of each project, and when OpenAI is left alone. It knows no target."""
