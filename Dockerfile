# Two stages: dependencies by lock file with hashes, then a bare runtime without build tools, tests or sandbox.
# tests/manifests/test_image.py runs these commands in a clean directory; what it cannot read, it refuses.

# The tag follows patch releases. A build that has to be the same again names the digest too:
# --build-arg PYTHON=3.13-slim@sha256:…
ARG PYTHON=3.13-slim

FROM python:${PYTHON} AS build
COPY requirements/runtime.txt /requirements.txt
# The venv has no pip: the base image's installs into it.
RUN python -m venv --without-pip /venv && \
    python -m pip --python /venv/bin/python install --no-cache-dir --no-compile --only-binary :all: \
      --require-hashes --no-deps --requirement /requirements.txt
# Most of what was installed: the Kubernetes client's generated classes, which the worker never imports, for it sends
# its own requests; and commands of libraries. tests/node/test_image.py imports all that a command does, in a container.
RUN rm -rf /venv/bin/[!p]* \
      /venv/lib/python3*/site-packages/kubernetes/client/api \
      /venv/lib/python3*/site-packages/kubernetes/client/models \
      /venv/lib/python3*/site-packages/kubernetes/aio/client/api \
      /venv/lib/python3*/site-packages/kubernetes/aio/client/models
COPY run.py /app/
COPY worker /app/worker
# Compiled once here: on a read-only root file system each run would do it again. Not by time: builders that make
# images reproducible rewrite the times of files, and Python would take such bytecode for stale.
RUN /venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /venv/lib /app

FROM python:${PYTHON}
# The base image has pip, and a standard library without bytecode.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/site-packages/* && \
    python -m compileall -q -j 0 --invalidation-mode unchecked-hash /usr/local/lib/python3*
COPY --from=build /venv /venv
COPY --from=build /app /app
COPY LICENSE /licenses/
# Who builds knows these: --build-arg SOURCE=URL --build-arg REVISION=COMMIT. They come late: each commit changes them.
ARG SOURCE=unknown
ARG REVISION=unknown
# buildah takes a LABEL from an earlier build's layers, whatever value its argument had there, but not a RUN.
RUN : ${SOURCE} ${REVISION}
LABEL org.opencontainers.image.title="openai-key-rotator" \
      org.opencontainers.image.description="A one-shot Kubernetes batch job that rotates OpenAI API keys without losing any" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PYTHONUNBUFFERED=1
WORKDIR /app
USER 65532:65532
ENTRYPOINT ["/venv/bin/python", "/app/run.py"]
