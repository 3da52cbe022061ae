"""OpenAI's Admin API, a run's knowledge of each project, and the limits on requests. It knows no target."""
