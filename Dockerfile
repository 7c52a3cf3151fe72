# Caudal in a container: built in one stage, run in another, as nobody, with nothing to write to.
#
#   docker build -t caudal .
#   docker run --read-only -p 8000:8000 -v "$PWD/models:/models:ro" caudal

FROM rust:1-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential nasm python3 python3-pip \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# setup brings ONNX Runtime's library into the cache folder, pinned and checked.
ENV CAUDAL_CACHE_DIR=/cache
# CMake is among it: Debian's is too old for HDF5.
RUN cargo xtask setup \
 && CMAKE=/cache/cmake/cmake/data/bin/cmake cargo build --release --locked --package caudal \
 && cp "$(find /cache -name 'libonnxruntime.so*' -type f)" /libonnxruntime.so

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home caudal
COPY --from=build /src/target/release/caudal /usr/local/bin/caudal
COPY --from=build /libonnxruntime.so /usr/local/lib/libonnxruntime.so
COPY --from=build /src/models /models
COPY --from=build /src/LICENSE /usr/share/doc/caudal/LICENSE
ENV CAUDAL_HOST=0.0.0.0 \
    CAUDAL_MODEL_REPOSITORY=/models \
    CAUDAL_ONNXRUNTIME_LIBRARY=/usr/local/lib/libonnxruntime.so
USER 10001
WORKDIR /
EXPOSE 8000
STOPSIGNAL SIGTERM
# A container is stopped after ten seconds unless told otherwise: shutting down is cut short before that.
ENV CAUDAL_EXIT_TIMEOUT_SECS=9
ENTRYPOINT ["caudal"]
CMD ["serve"]
