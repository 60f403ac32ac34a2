# orch, from nothing but its own static binary. scripts/image makes the image.
FROM scratch
LABEL org.opencontainers.image.title="orch" \
      org.opencontainers.image.description="Keeps a cluster's state in Raft, schedules work, and runs it" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY orch /orch
# A volume mounted here starts out owned by the user below.
COPY --chown=65534:65534 data /data
# A server needs no rights. An agent needs the engine's socket: run it as root or in its group.
USER 65534:65534
# 7400: REST, WebSocket, console. 7401: servers and agents.
EXPOSE 7400 7401
# Long pieces of memory (log entries) go back to the kernel one by one, instead of leaving holes
# between the short ones that stay. A third of the memory after a large import.
ENV GLIBC_TUNABLES=glibc.malloc.mmap_threshold=262144
ENTRYPOINT ["/orch"]
CMD ["--help"]
