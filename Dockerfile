# Two images from one build: `espora` (lb, api and store: the competition entry) and `arena` (the processors' stand-in).
#
# Nothing here needs BuildKit, so that an old engine without it builds the same images: no cache mounts, but a layer of
# compiled dependencies, which lives as long as the manifests do not change.
ARG BUILD_IMAGE=rust:1.95-bookworm

# The workspace with every source file emptied: equal, for the layer cache, until a manifest or a file name changes.
FROM ${BUILD_IMAGE} AS skeleton
WORKDIR /src
COPY . .
RUN find . -name '*.rs' -exec sh -c 'for file; do echo "fn main() { }" >"$file"; done' sh {} +

FROM ${BUILD_IMAGE} AS build
ARG CARGO_FLAGS=--locked
ARG PACKAGES="--package lb --package api --package store --package arena"
# Static, because scratch has no C library. The target is named although it is the host's: with it the flags leave the
# procedural macros alone, which the compiler must load as shared objects.
ENV RUSTFLAGS="-C target-feature=+crt-static"
ENV TARGET=x86_64-unknown-linux-gnu
WORKDIR /src
COPY --from=skeleton /src .
RUN cargo build --release ${CARGO_FLAGS} --target ${TARGET} ${PACKAGES}
COPY . .
# The copied files may be older than the skeleton's artefacts, which cargo would then take for current.
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
    && cargo build --release ${CARGO_FLAGS} --target ${TARGET} ${PACKAGES} \
    && mkdir -p /out \
    && cd target/${TARGET}/release \
    && cp lb api store arena /out/
# A named volume takes over owner and mode of the folder that it is first mounted on.
RUN mkdir -p /volumes/run/espora /volumes/run/espora-store /volumes/var/lib/espora \
    && chmod 0770 /volumes/run/espora /volumes/run/espora-store /volumes/var/lib/espora

FROM scratch AS arena
COPY --from=build /out/arena /arena
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["/arena"]

FROM scratch AS espora
COPY --from=build --chown=10001:10001 /volumes/ /
COPY --from=build /out/lb /out/api /out/store /
USER 10001:10001
