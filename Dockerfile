# Two stages: dependencies by lock file with hashes, then a bare runtime without build tools, tests or sandbox.
FROM python:3.13-slim AS build
WORKDIR /app
COPY requirements/runtime.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r runtime.txt
COPY run.py .
COPY worker worker
# Compiled once here: a read-only root file system would compile at every run, which costs 2 s of CPU.
RUN /venv/bin/python -m compileall -q /venv/lib worker

FROM python:3.13-slim
LABEL org.opencontainers.image.title="openai-key-rotator" \
      org.opencontainers.image.description="Rotates the OpenAI API keys of a cluster's workloads"
COPY --from=build /venv /venv
COPY --from=build /app /app
WORKDIR /app
USER 65532:65532
ENTRYPOINT ["/venv/bin/python", "/app/run.py"]
