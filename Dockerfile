# docker build -t dcmrouter .
# docker run -v dcmrouter-data:/data -v ./config.yaml:/etc/dcmrouter/config.yaml:ro \
#            -p 104:11112 -p 127.0.0.1:8080:8080 --stop-timeout 30 dcmrouter
#
# In the configuration: `data_dir: /data`, local AEs at 0.0.0.0:11112, and `http.listen` at
# 0.0.0.0:8080 if it is to be reached from outside of the container.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
RUN python -m venv /opt/dcmrouter
COPY pyproject.toml README.md LICENSE config.example.yaml ./
COPY router router
COPY rules rules
RUN /opt/dcmrouter/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:${PYTHON}-slim
# A fixed number, so that a volume or a bind mount can be given to it.
RUN groupadd --system --gid 10104 dcmrouter \
    && useradd --system --uid 10104 --gid dcmrouter --home-dir /data --no-create-home dcmrouter \
    && install --directory --owner=dcmrouter --group=dcmrouter --mode=0700 /data
COPY --from=build /opt/dcmrouter /opt/dcmrouter
ENV PATH=/opt/dcmrouter/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DCMROUTER_CONFIG=/etc/dcmrouter/config.yaml
USER dcmrouter
WORKDIR /data
VOLUME /data
EXPOSE 11112 8080
STOPSIGNAL SIGTERM
# Whether the process lives; whether it accepts is /readyz.  After another port is configured:
# --health-cmd, or HEALTH_URL.
ENV HEALTH_URL=http://127.0.0.1:8080/healthz
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(os.environ['HEALTH_URL'], timeout=4)"]
ENTRYPOINT ["dcmrouter", "serve"]
