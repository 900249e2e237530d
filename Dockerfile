# The image that workers run in. Yours begins with it (docs/operations.md has the whole of it):
#
#     FROM holdfast:0.1.0
#     COPY app.py .
#
# BASE is any image with Python 3.11 or later and pip, as `python`.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
WORKDIR /src
COPY . .
# An environment without pip: what runs has no use for it, and whoever gets in finds none.
RUN python -m venv --without-pip /opt/holdfast \
    && python -m pip --python /opt/holdfast/bin/python --disable-pip-version-check install --no-cache-dir \
        --constraint constraints.txt . \
    && mkdir /state

FROM ${BASE}
COPY --from=build /opt/holdfast /opt/holdfast
# What the dead-letter tools write: a worker writes nothing.
COPY --from=build --chown=10001:10001 /state /var/lib/holdfast
ENV PATH=/opt/holdfast/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOLDFAST_HTTP__HOST=0.0.0.0 \
    HOLDFAST_DEAD_LETTERS__FOLDER=/var/lib/holdfast
WORKDIR /app
# A number, so that Kubernetes can tell that it is not root.
USER 10001:10001
EXPOSE 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-ISc", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('HOLDFAST_HTTP__PORT', '9464') + '/livez', timeout=4)"]
# Exec form: holdfast is process 1 and is sent the signals itself.
ENTRYPOINT ["holdfast"]
CMD ["run", "app:worker"]
