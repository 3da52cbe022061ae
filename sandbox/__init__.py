"""An embedded OpenAI Admin API and an embedded Kubernetes API, for the demo, tests, simulation and benchmarks."""
