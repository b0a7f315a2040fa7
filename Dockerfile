# The CPU image; for NVIDIA GPUs: docker build --build-arg EXTRA=gpu . and run it with --gpus all.
FROM python:3.12-slim
ARG EXTRA=cpu
WORKDIR /app
# Dependencies first: they change less often than the code.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir pipeline store flows && touch pipeline/__init__.py store/__init__.py flows/__init__.py \
 && pip install --no-cache-dir -c constraints.txt -e ".[${EXTRA},s3]"
COPY . .
# The decoders' shared frames live in /dev/shm: run with --shm-size=1g. Clips fetched by URL pass
# through here, bounded to half of what is free.
ENV PIXELS_ONCE_SCRATCH=/tmp DO_NOT_TRACK=1 PREFECT_SERVER_ANALYTICS_ENABLED=false
RUN useradd --create-home worker && chown -R worker /app
USER worker
ENTRYPOINT ["pixels-once"]
CMD ["--help"]
