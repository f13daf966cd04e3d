# The one image of our own: Spark's master and workers, the streams and Dagster run the same Python, Java and archives.
FROM python:3.11.14-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-17-jre-headless \
    && rm -rf /var/lib/apt/lists/*

ENV PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/var/cache/stock_pipeline

WORKDIR /opt/stock_pipeline

COPY requirements.lock .
RUN pip install --no-cache-dir --require-hashes --no-deps --requirement requirements.lock

# Editable: Dagster's loader looks for pyproject.toml above the package.
COPY . .
RUN pip install --no-cache-dir --no-build-isolation --no-deps --editable .

# A new volume takes over this folder's owner. The cache holds the Java archives, verified and locked at each use.
RUN useradd --uid 10001 --create-home stocks \
    && mkdir -p /var/lib/stock_pipeline/dagster "$XDG_CACHE_HOME" \
    && python -c "from spark.class_archive import ensure_class_archive; ensure_class_archive()" \
    && chown -R stocks:stocks /var/lib/stock_pipeline "$XDG_CACHE_HOME"

USER stocks
