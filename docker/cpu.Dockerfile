# dip on CPU, with every kind of data.
#   docker build -f docker/cpu.Dockerfile -t dip .
#   docker run --rm -v "$PWD:/work" dip train run.toml
FROM rust:1.92-slim-trixie AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /dip
COPY . .
RUN cargo install --locked --path . --root /out --features audio,parquet,remote

FROM debian:trixie-slim
# ffmpeg reads videos; certificates are for shards by URL.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates ffmpeg && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/bin/dip /usr/local/bin/dip
RUN useradd --create-home dip
USER dip
WORKDIR /work
ENTRYPOINT ["dip"]
