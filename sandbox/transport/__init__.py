"""The ways of requests to the machines, and the faults on the way. It knows neither API."""
