# syntax=docker/dockerfile:1
# One image for broker and worker; the command says which:
#
#   docker build -t runlane .
#   docker run -v runlane:/data -v ./token:/run/secrets/token:ro -p 4200:4200 runlane
#   docker run -v ./tasks.py:/app/tasks.py:ro -v ./token:/run/secrets/token:ro --no-healthcheck \
#     -e RUNLANE_URL=http://broker.example:4200 -e RUNLANE_TOKEN_FILE=/run/secrets/token runlane worker tasks.py
#
# The token, 16 to 1024 printable characters, must be readable by user 10001, which all of it runs as. For an image
# of your own: FROM runlane, COPY the code to /app, and install what that needs as root, with pip.

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
RUN python -m venv /opt/runlane
ENV PATH=/opt/runlane/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
COPY pyproject.toml README.md LICENSE ./
COPY clients clients
COPY broker broker
RUN pip install '.[broker]'

FROM python:${PYTHON}-slim
RUN groupadd --gid 10001 runlane \
 && useradd --uid 10001 --gid runlane --no-create-home --home-dir /app --shell /usr/sbin/nologin runlane \
 && install --directory --owner runlane --group runlane /data /app
COPY --from=build /opt/runlane /opt/runlane
ENV PATH=/opt/runlane/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /app
VOLUME /data
EXPOSE 4200
# SIGTERM is what both drain at. A worker takes up to its --drain-timeout (25 s): docker stop -t 30.
STOPSIGNAL SIGTERM
# For the broker. Workers listen nowhere: start them with --no-healthcheck.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["runlane", "status"]
ENTRYPOINT ["runlane"]
CMD ["serve", "--host", "0.0.0.0", "--db", "sqlite:////data/runlane.db", "--token-file", "/run/secrets/token"]
