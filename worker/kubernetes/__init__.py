"""The Kubernetes API and the objects that a run reads from it or writes to it. It knows no stage of a run."""
