"""The Kubernetes API and the objects that are read from or written to it. It knows no stage of a run."""
